import pytest

from circuit_script.errors import TrialRefused
from circuit_script.wiring.trial_faults import Faults


def test_a_fault_happens_as_often_as_is_said_and_only_to_its_kind():
    faults = Faults({"https://api.openai.com/v1"})
    model, callout = faults.arm("model", 1), faults.arm("callout", 2)
    url = "https://api.openai.com/v1/chat/completions"
    assert [faults.breaks(each) for each in (url, url, "https://a.example/", "https://a.example/")] == [
        "model", "", "callout", "callout",
    ]  # fmt: skip
    assert (model.happened, callout.happened, callout.left) == (1, 2, 0)
    assert faults.strikes("commit", "worker") == ""


def test_after_its_block_nothing_happens():
    faults = Faults()
    faults.disarm(faults.arm("worker", 3))
    assert faults.strikes("worker") == ""
    assert faults.armed == []


@pytest.mark.parametrize(("kind", "times", "said"), [("comit", 1, "'commit'"), ("worker", 0, "0 times")])
def test_what_cannot_fail_is_refused(kind, times, said):
    with pytest.raises(TrialRefused, match=said):
        Faults().arm(kind, times)
