"""Faults on demand around runs that take two seconds."""

import resource
from contextlib import contextmanager

import pytest
from test_parity import fit

from hgtrain.commands import fit as fit_module
from hgtrain.train import loop


def make_quick(patch):
    """Let runs do one step a call, and leave the evaluation out."""
    patch.setattr(loop, "SECONDS_A_CALL", 0.0)
    patch.setattr(fit_module, "_evaluate_best", lambda config, folder, split: {})


def undisturbed(config_file, folder):
    """Return the directory of a run of two epochs of four steps that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        fit(config_file, folder, ())
    return folder


@contextmanager
def full_disk(limit=1000):
    """No file may grow beyond some bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def failing(monkeypatch, owner, name, at, fault):
    """Call `fault` before the `at`th call of a method."""
    method, calls = getattr(owner, name), []

    def called(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            with fault(self):
                return method(self, *arguments)
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, called)
