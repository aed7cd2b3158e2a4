"""What a process needs to run tasks: the world, Banken's baseline on it, and fitted rivals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from detector.baseline import Baseline
from detector.findings import FindingState
from detector.groups import CAMPAIGN, DEFAULT_GROUPS
from detector.progress import Answer, Answered, Exam, progress_of
from detector.ranking import e_bh
from detector.subjects import CLIENT, SubjectKey
from detector.trusted import rates_of
from redteam.benchmark.agreement import agreement
from redteam.benchmark.plan import Group, Task
from redteam.benchmark.remembering import RememberingVictim
from redteam.benchmark.replicates import CLIENT as ATTACKER
from redteam.benchmark.replicates import attack, background, campaign, honest, seeds_of, slicing_of
from redteam.benchmark.runs import BANKEN, Run
from redteam.benchmark.slices import Slicing, rng_of
from redteam.benchmark.watching import Step, Watched, batches_of, watch
from redteam.errors import RedteamError
from redteam.honest import trusted_history
from redteam.pictures import Pictures
from redteam.rivals import RIVALS, Rival
from redteam.traffic import Traffic, merge
from redteam.world import World, load_world

__all__ = ["FDR", "Bench", "fit_baseline"]

FDR = 0.05
"""False discovery rate of the list of accounts in which a campaign's are looked for."""

_RIVALS_TRUSTED = (600, 1_200)
"""Queries of each trusted client for the rivals: an MMD window alone takes 500."""

_FOUND = (FindingState.SUSPECTED, FindingState.ALERTED)


def fit_baseline(world: World) -> Baseline:
    """Banken's baseline: the reference's, with rates of the trusted history."""
    baseline = Baseline.fit(world.name, world.encoder, world.reference.embeddings)
    history = trusted_history(world, rng_of(world.name, "trusted"))
    return baseline.with_rates(rates_of(baseline, batches_of(history)))


@dataclass
class Bench:
    """Runs tasks.

    Attributes:
        world: the domain.
        baseline: Banken's on it.
    """

    world: World
    baseline: Baseline
    _rivals: dict[str, Rival | None] = field(default_factory=dict)

    def run(self, task: Task) -> list[Run]:
        """Run a task's replicates; none of a rival that cannot be fitted to this world."""
        if task.detector != BANKEN and self._rival(task.detector) is None:
            return []
        run = {Group.ATTACK: self._attack, Group.HONEST: self._honest, Group.CAMPAIGN: self._campaign}
        return list(run[task.stream.group](task))

    def _attack(self, task: Task) -> Iterator[Run]:
        stream, seeds = task.stream, seeds_of(task.stream)
        for replicate in range(task.first, task.stop):
            traffic = attack(self.world, stream, replicate, task.of)
            if task.detector == BANKEN:
                watched = watch(self.baseline, traffic)
                subject = SubjectKey(CLIENT, ATTACKER)
                suspected = watched.first(subject, *_FOUND, since=seeds)
                alerted = watched.first(subject, FindingState.ALERTED, since=seeds)
                found = {
                    "suspected_at": _after(suspected, seeds),
                    "alerted_at": _after(alerted, seeds),
                    "alerted_by": alerted.leading if alerted else "",
                    "seconds": watched.seconds,
                }
                end = len(traffic) if alerted is None else max(1, alerted.queries)
                if task.trains:
                    found |= self._leaked(traffic.pictures, end, alerted is not None)
            else:
                # A rival knows nothing of turns and seeds: its alarms before them are alarms.
                alarm, seconds = self._alarm(task.detector, traffic.pictures)
                end = len(traffic) if alarm is None else alarm
                found = {"alerted_at": None if alarm is None else max(0, alarm - seeds), "seconds": seconds}
            asked = int(traffic.attack[:end].sum())
            slicing = slicing_of(self.world, stream, task.of, asked)
            yield self._run(task, replicate, slicing, len(traffic) - seeds, **found)

    def _honest(self, task: Task) -> Iterator[Run]:
        traffic = honest(self.world, task.stream, task.first, task.stop)
        clients = traffic.of_client()
        if task.detector == BANKEN:
            watched = watch(self.baseline, traffic)
            for replicate, (client, own) in enumerate(clients.items(), task.first):
                subject = SubjectKey(CLIENT, client)
                alerted = watched.first(subject, FindingState.ALERTED)
                yield self._run(
                    task,
                    replicate,
                    Slicing.BOOTSTRAP,
                    len(own),
                    suspected_at=_after(watched.first(subject, *_FOUND)),
                    alerted_at=_after(alerted),
                    alerted_by=alerted.leading if alerted else "",
                    seconds=watched.seconds / len(clients),
                )
            return
        for replicate, own in enumerate(clients.values(), task.first):
            alarm, seconds = self._alarm(task.detector, own.pictures)
            yield self._run(task, replicate, Slicing.BOOTSTRAP, len(own), alerted_at=alarm, seconds=seconds)

    def _campaign(self, task: Task) -> Iterator[Run]:
        for replicate in range(task.first, task.stop):
            thief = campaign(self.world, task.stream, replicate)
            rng = rng_of(task.stream, replicate)
            traffic = merge([thief, *background(self.world, task.stream.beside, replicate)], rng)
            accounts = set(thief.clients)
            if task.detector == BANKEN:
                watched = watch(self.baseline, traffic, groups=DEFAULT_GROUPS, classes=self.world.classes)
                found = _pooled(watched, traffic, accounts)
                names = sorted(watched.evidence)
                listed = e_bh(np.array([watched.evidence[name] for name in names]), FDR)
                suspects = {name for name, is_listed in zip(names, listed, strict=True) if is_listed}
                linked = {
                    client
                    for subject, members in watched.members.items()
                    if subject.kind == CAMPAIGN and subject in watched.steps
                    for client in members
                }
                found |= _listed("{}_members", linked, accounts)
            else:
                alarms = {
                    client: self._alarm(task.detector, own.pictures)
                    for client, own in traffic.of_client().items()
                }
                suspects = {client for client, (alarm, _) in alarms.items() if alarm is not None}
                found = {"seconds": sum(seconds for _, seconds in alarms.values())}
            found |= _listed("{}", suspects, accounts)
            yield self._run(task, replicate, Slicing.BOOTSTRAP, len(thief), **found)

    def _run(self, task: Task, replicate: int, slicing: Slicing, queries: int, **found: Any) -> Run:
        stream = task.stream
        return Run(
            domain=self.world.name,
            group=stream.group.value,
            name=stream.name,
            pool=stream.pool,
            share=stream.share,
            accounts=stream.accounts,
            network=stream.network,
            replicate=replicate,
            slicing=slicing.value,
            detector=task.detector,
            queries=queries,
            **found,
        )

    def _leaked(self, asked: Pictures, end: int, alerted: bool) -> dict[str, float | None]:
        """What a thief holds at the alert and at the end, and what the detector says of it."""
        exam = self.world.exam
        pairs = Answered.of(self._exam, asked.embeddings[:end], self._answers(asked[:end]))
        return {
            "agreement_at_alert": agreement(asked[:end], exam) if alerted else None,
            "agreement_final": agreement(asked, exam),
            "progress_at_alert": progress_of(self._exam, pairs, end).strong,
        }

    def _alarm(self, rival: str, asked: Pictures) -> tuple[int | None, float]:
        fitted, began = self._rival(rival), time.perf_counter()
        assert fitted is not None  # or the task would not be run
        return fitted.alarm(asked), time.perf_counter() - began

    def _rival(self, name: str) -> Rival | None:
        """A rival, fitted when it is first needed; None where the trusted clients do not suffice for it."""
        if name not in self._rivals:
            try:
                self._rivals[name] = RIVALS[name](self.world, self._trusted)
            except RedteamError:
                self._rivals[name] = None
        return self._rivals[name]

    @classmethod
    def open(cls, data: Path, cache: Path, domain: str, baseline: Path, *, small: bool) -> Bench:
        """Open what was prepared before; takes seconds.

        Args:
            data: as `redteam.world.load_world` takes it.
            cache: the same.
            domain: the same.
            baseline: file of its archive.
            small: as `redteam.world.load_world` takes it.
        """
        world = load_world(data, cache, domain, small=small)
        world = replace(world, victim=RememberingVictim(world.victim))
        return cls(world, Baseline.from_bytes(baseline.read_bytes()))

    @cached_property
    def _trusted(self) -> list[Pictures]:
        """Trusted clients for the rivals: Banken's habits and pictures, but lives that fill any window."""
        rng = rng_of(self.world.name, "trusted for rivals")
        shortest, longest = _RIVALS_TRUSTED
        history = trusted_history(self.world, rng, shortest=shortest, longest=longest)
        return [own.pictures for own in history.of_client().values()]

    @cached_property
    def _exam(self) -> Exam:
        """The owner's exam: reference pictures, none of which the benchmark's own exam holds."""
        reference = self.world.reference
        return Exam.choose(reference.embeddings, self._answers(reference))

    def _answers(self, asked: Pictures) -> list[Answer]:
        classes = self.world.classes
        return [(None, dict(zip(classes, row, strict=True))) for row in asked.answers.astype(float).tolist()]


def _after(step: Step | None, since: int = 0) -> int | None:
    """Queries from ``since`` to a step, 0 where it was before that; None for never."""
    return None if step is None else max(0, step.queries - since)


def _listed(column: str, suspects: set[str], accounts: set[str]) -> dict[str, float | None]:
    """Recall and precision of a list; no precision of an empty one."""
    right = len(suspects & accounts)
    return {
        column.format("recall"): right / len(accounts),
        column.format("precision"): right / len(suspects) if suspects else None,
    }


def _pooled(watched: Watched, traffic: Traffic, accounts: set[str]) -> dict[str, Any]:
    """The campaign's own queries until any group of it was suspected and alerted, and which came first.

    A group is of the campaign if it holds several of its accounts: the fleet, a network, linked accounts.
    """
    theirs = np.cumsum([client in accounts for client in traffic.clients])
    suspected, alerted, by = None, None, ""
    for subject in list(watched.steps):
        if len(watched.members[subject] & accounts) < 2:
            continue
        first = watched.first(subject, *_FOUND)
        if first is not None:
            count = int(theirs[first.row])
            suspected = count if suspected is None else min(suspected, count)
        first = watched.first(subject, FindingState.ALERTED)
        if first is not None and (alerted is None or theirs[first.row] < alerted):
            alerted, by = int(theirs[first.row]), subject.kind
    return {
        "suspected_pooled": suspected,
        "alerted_pooled": alerted,
        "alerted_by": by,
        "seconds": watched.seconds,
    }
