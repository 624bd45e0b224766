import os
import signal
from contextlib import suppress

import pytest

from hgtrain.signals import StoppedError, StopRequest

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "status"), SIGNALS)
def test_a_signal_stops_at_once_with_the_status_of_the_shell(signum, status):
    with pytest.raises(StoppedError) as stopped, StopRequest().listening():
        send(signum)
    assert stopped.value.exit_status == status
    assert str(stopped.value) == signal.Signals(signum).name


@pytest.mark.parametrize(("signum", "status"), SIGNALS)
def test_the_first_signal_is_only_noted_while_postponed(signum, status):
    stop, before, after = StopRequest(), None, None

    def work():
        nonlocal before, after
        with stop.listening(), stop.postponed():
            before = bool(stop)
            send(signum)
            after = bool(stop)
            stop.leave()

    with pytest.raises(StoppedError) as stopped:
        work()
    assert (before, after) == (False, True)
    assert stopped.value.exit_status == status


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("second", "status"), SIGNALS)
def test_the_second_signal_stops_at_once(first, second, status):
    stop, was_noted = StopRequest(), False

    def work():
        nonlocal was_noted
        with stop.listening(), stop.postponed():
            send(first)
            was_noted = True
            send(second)
            was_noted = False

    with pytest.raises(StoppedError) as stopped:
        work()
    assert was_noted
    assert stopped.value.exit_status == status


def test_a_signal_that_nobody_asked_for_stops_at_the_end_of_the_block():
    stop = StopRequest()
    with pytest.raises(StoppedError, match="SIGTERM"), stop.listening(), stop.postponed():
        send(signal.SIGTERM)


def test_a_signal_to_another_process_is_one_to_this():
    stop = StopRequest()
    stop.join(signal.SIGTERM)
    with pytest.raises(StoppedError, match="SIGTERM"):
        stop.leave()


def test_a_signal_of_its_own_stays_where_no_other_process_got_one():
    stop = StopRequest()
    stop.join(signal.SIGINT)
    stop.join(0)
    assert stop.signum == signal.SIGINT


def swallow(signum):
    with suppress(StoppedError):
        send(signum)


def test_a_signal_that_was_swallowed_stops_before_postponing():
    stop, came_here = StopRequest(), False

    def work():
        nonlocal came_here
        with stop.listening():
            swallow(signal.SIGTERM)
            with stop.postponed():
                came_here = True

    with pytest.raises(StoppedError, match="SIGTERM"):
        work()
    assert not came_here


def test_a_signal_that_was_swallowed_stops_at_the_end():
    with pytest.raises(StoppedError, match="SIGINT"), StopRequest().listening():
        swallow(signal.SIGINT)


def test_another_exception_goes_before_a_noted_signal():
    def work():
        stop = StopRequest()
        with stop.listening(), stop.postponed():
            send(signal.SIGTERM)
            raise ValueError("another")

    with pytest.raises(ValueError, match="another"):
        work()


def test_after_postponing_a_signal_stops_at_once_again():
    def work():
        stop = StopRequest()
        with stop.listening():
            with stop.postponed():
                pass
            send(signal.SIGINT)

    with pytest.raises(StoppedError, match="SIGINT"):
        work()


def test_nothing_on_the_way_takes_a_stop_for_a_failure():
    assert not issubclass(StoppedError, Exception)


def test_the_handlers_before_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="x"), StopRequest().listening():
        raise ValueError("x")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_without_a_signal_leaving_counts_as_ctrl_c():
    with pytest.raises(StoppedError) as stopped:
        StopRequest().leave()
    assert stopped.value.exit_status == 130
