"""The coverage signal: which cells of the domain a client has visited, and what mass it has not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_CELLS", "enter_cells", "unvisited_cells", "visited_cells"]

MOST_CELLS = 256
"""Cells that a subject's state has bits for; a domain of more cells has no coverage signal."""


def enter_cells(
    visited: npt.NDArray[np.uint64],
    slots: npt.NDArray[np.intp],
    cells: npt.NDArray[np.int64],
    inside: npt.NDArray[np.bool_],
    mass: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Take events in the log's order and mark the cells that they enter.

    Masses are whole numbers of reference images, so that the unvisited mass has the same bits however the
    log is cut into batches.

    Args:
        visited: bits of visited cells by table slot, shape (slots, 4); changed in place.
        slots: row of each event's client, shape (n,).
        cells: nearest cell of each event, in [0, cells), shape (n,).
        inside: whether the event lies inside the domain; what is foreign visits nothing, shape (n,).
        mass: reference images by cell, > 0, shape (cells,), at most :data:`MOST_CELLS`.

    Returns:
        Whether each event enters a cell new to its client, shape (n,); and the share of the mass that the
        client had not visited before it, in [0, 1], shape (n,).
    """
    word, bit = cells >> 6, np.uint64(1) << (cells & 63).astype(np.uint64)
    entered = np.zeros(len(slots), np.bool_)
    events = np.flatnonzero(inside & ((visited[slots, word] & bit) == 0))
    _, first = np.unique(slots[events] * MOST_CELLS + cells[events], return_index=True)
    entered[events[first]] = True

    clients, client = np.unique(slots, return_inverse=True)
    before = visited_cells(visited[clients], len(mass)) @ mass
    order = np.argsort(client, kind="stable")
    gained = np.where(entered, mass[cells], 0)[order]
    running = np.cumsum(gained) - gained
    starts = np.searchsorted(client[order], np.arange(len(clients)))
    seen = np.empty(len(slots), np.int64)
    seen[order] = running - running[starts][client[order]] + before[client[order]]
    np.bitwise_or.at(visited, (slots[entered], word[entered]), bit[entered])
    total = int(mass.sum())
    return entered, (total - seen) / total


def visited_cells(visited: npt.NDArray[np.uint64], cells: int) -> npt.NDArray[np.bool_]:
    """Bits as booleans.

    Args:
        visited: shape (n, 4).
        cells: how many cells the domain has.

    Returns:
        Shape (n, cells).
    """
    bits = np.unpackbits(np.ascontiguousarray(visited, "<u8").view(np.uint8), axis=-1, bitorder="little")
    return bits[..., :cells].astype(np.bool_)


def unvisited_cells(
    mass: npt.NDArray[np.int64], visits: npt.NDArray[np.int64], *, chance: float = 1e-3
) -> npt.NDArray[np.bool_]:
    """Cells that honest clients would have visited by now, had they belonged to the domain.

    No visit, where the cell's share of the mass would bring e, has the probability exp(−e). Clients have
    habits, so e is taken at a tenth of that.

    Args:
        mass: reference images by cell, shape (cells,); empty where they are not known.
        visits: trusted clients' queries by cell, shape (cells,).
        chance: with which any cell is named that no habit explains.

    Returns:
        Shape (cells,).
    """
    if len(mass) == 0:
        return np.zeros(len(visits), np.bool_)
    expected = 0.1 * visits.sum() * mass / mass.sum()
    never: npt.NDArray[np.bool_] = (visits == 0) & (np.exp(-expected) < chance / len(mass))
    return never
