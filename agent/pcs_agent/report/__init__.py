"""What `pcs-agent report` shows of streams: one self-contained page, or text for a terminal.

`gathering` reads, `portrait` measures what is drawn of a window, `streams` holds it in bounded room, `wording` says it,
`pictures` and `page` write HTML, `terminal` writes text. Nothing here sends, signs or changes anything.
"""
