"""The command group, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import sys
from typing import Any

import click

from pcs_agent.cli.build import build
from pcs_agent.cli.codebook import codebook
from pcs_agent.cli.keygen import keygen
from pcs_agent.cli.outbox import dlq, outbox
from pcs_agent.cli.report import report
from pcs_agent.cli.run import run
from pcs_agent.cli.verify import verify
from pcs_agent.errors import AgentError, OutputError
from pcs_agent.streams import abandon, name_of, prepare_streams, print_error
from pcs_core.errors import WalError


class RefusedInput(click.ClickException):  # as click names its own
    """Usage, input or configuration."""

    exit_code = 2


class AgentGroup(click.Group):
    """A group whose commands may raise the agent's errors."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # click's signature
        """Run the command line; what the system refuses (such as help on a full disk) ends without a traceback."""
        prepare_streams()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            problem = name_of(error)
        abandon(sys.stdout)
        print_error(f"Error: {problem}")
        sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  # click's signature
        """Run the command; turn what the agent raises on purpose into a message without a traceback."""
        failure: click.ClickException | None = None
        try:
            return super().invoke(ctx)
        except OutputError as error:
            failure = click.ClickException(str(error))
        except AgentError as error:
            failure = RefusedInput(str(error))
        except WalError as error:
            failure = click.ClickException(f"outbox: {error}; nothing unsynced was sent")
        raise failure


@click.group(cls=AgentGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pcs-verification", prog_name="pcs-agent")
def main() -> None:
    """Summarise streams of events, sign the summaries and deliver them.

    \b
    Exit codes:
      0  everything was delivered, or verified
      1  something failed verification, became a dead letter or is not delivered
      2  usage, input or configuration

    \b
    Environment (empty = unset):
      ENDPOINT                full URL to submit to
      PCS_SIGN_ALG            none (default), hmac or ed25519
      PCS_HMAC_KEY            shared secret of hmac
      PCS_ED25519_SECRET_B64  base64 of the 32-byte seed of ed25519
      OUTBOX_DIR              folder of the outbox (./outbox)
      OUTBOX_RETENTION_DAYS   how long delivered records stay in it (14)
      DELIVERY_DEADLINE_S     how long one record is retried (900)
      PCS_PARAMS_FILE         TOML of thresholds and weights
      LOG_LEVEL               debug, info, warning (default), error, critical

    \b
    Examples:
      pcs-agent keygen --out agent.key
      pcs-agent run events.csv --shard-id shard-a --epoch 0
      pcs-agent build events.csv --shard-id shard-a --epoch 0 | pcs-agent verify -
    """  # noqa: D301  # \b is click's mark for text that is not to be wrapped


for _command in (run, build, verify, report, outbox, dlq, keygen, codebook):
    main.add_command(_command)
