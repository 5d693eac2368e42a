"""The controls beside the peers: up for the open loop, once they know the answers of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from headrace.loadtest.open_loop import Exchange, write_exchanges
from headrace.loadtest.peers.adapters import HEADRACE_JSON, post
from headrace.loadtest.peers.cells import Plan
from headrace.loadtest.peers.servers import FIRST_ASK, Live, serving
from headrace.loadtest.peers.table import OUR_SERVER, Peer, control_exchanges
from headrace.loadtest.servers.process import free_port


@contextmanager
def controls_up(live: Live, controls: Sequence[Peer], plan: Plan) -> Generator[Live]:
    """All that runs, with the controls among it; without any, ours need not run."""
    if not controls:
        yield live
        return
    asks = [FIRST_ASK, *(ask for cell in plan.open_cells for ask in cell.open_asks(plan.size))]
    port = live.peers[OUR_SERVER].port
    bodies = [HEADRACE_JSON.body(ask) for ask in asks]
    exchanges = [Exchange(body, post(port, HEADRACE_JSON, body)) for body in bodies]
    write_exchanges(control_exchanges(live.place), exchanges)
    with contextlib.ExitStack() as stack:
        running = {
            each.name: stack.enter_context(serving(each, live.place._replace(port=free_port())))
            for each in controls
        }
        yield live._replace(peers=live.peers | running)
