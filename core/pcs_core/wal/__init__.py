"""The write-ahead log both sides use: append-only, checksummed, synced. The only code that calls fsync.

On disk
    A log is a folder, mode 0700, of segments named by the first sequence number they may hold, `%020d.wal`; an `anchor`,
    which has the bytes of a segment header and tells salt and oldest segment; and a folder `aside` of torn tails and
    damaged bytes (names: `pcs_core.wal.folder`). A segment is a header and frames:

    ======  =====  ==========================================================================
    header  bytes
    ======  =====  ==========================================================================
    magic   8      `PCSWAL01`
    salt    8      random, the same in every segment of the log
    first   8      first sequence number the segment may hold, little-endian like all numbers
    crc     4      CRC32C of the bytes above
    ======  =====  ==========================================================================

    ==========  =====  ======================================================================
    frame       bytes
    ==========  =====  ======================================================================
    magic       4      `PCSF`, where a reader resumes after damage
    version     1      1
    kind        1      what the frame is to its owner; 0 is the log's own seal
    reserved    2      0
    sequence    8      never repeats, never falls
    envelope    4      length in bytes
    payload     4      length in bytes
    header crc  4      CRC32C of salt and the bytes above
    envelope    …
    payload     …
    crc         4      CRC32C of salt, header CRC, envelope and payload
    ==========  =====  ======================================================================

    The salt is why a request body that holds the bytes of a frame can never be taken for one, whatever was torn or
    damaged around it: whoever wrote the body does not know the salt.

    A full segment ends with a seal, a frame of kind 0 whose payload is the number of frames and their chained CRC. The
    next segment begins with the number after the seal's.

Guarantees
    - When `Wal.commit` returns, its frames are on disk (fdatasync returned), and so is the segment's directory entry.
    - After a failed sync the log never acknowledges again in this process: what the kernel did with the bytes is unknown.
    - An invalid end of the last segment with no valid frame after it is a torn tail: its bytes are copied to `aside`,
      synced, then cut off. Damage anywhere else is reported with segment and offset, never skipped in silence, copied
      to `aside`, never blocks the opening, and ends the segment: new frames go to a new one. Good frames before and
      after it are visited.
      The segment itself is left as it is; `repair_log` rewrites it.
    - A segment that is missing is reported, unless it is the newest: that looks like a crash before it was made.
    - Sequence numbers resume above any number seen and any that the cut bytes could have held. Those of a write that
      failed and was cut off may come again after a restart: nobody was told of them, and of the bytes one version at
      most is on disk.
    - Segments are removed oldest first, only when their owner's ledger holds nothing open in them, and a damaged one
      only when its damaged bytes are in `aside`. That is bounded; beyond the bounds damaged segments stay.
"""

from pcs_core.wal.check import LogReport, Repair, SegmentReport, check_log, repair_log
from pcs_core.wal.files import Files, PosixFiles, name_of
from pcs_core.wal.frame import Frame, NewFrame
from pcs_core.wal.ledger import Ledger
from pcs_core.wal.log import Position, Wal
from pcs_core.wal.reading import read_newest_first
from pcs_core.wal.scan import Damage
from pcs_core.wal.snapshot import read_snapshot, write_snapshot

__all__ = [
    "Damage",
    "Files",
    "Frame",
    "Ledger",
    "LogReport",
    "NewFrame",
    "Position",
    "PosixFiles",
    "Repair",
    "SegmentReport",
    "Wal",
    "check_log",
    "name_of",
    "read_newest_first",
    "read_snapshot",
    "repair_log",
    "write_snapshot",
]
