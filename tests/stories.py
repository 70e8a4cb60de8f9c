"""In which order stories are told, and which ones by the same process of a run (`--dist loadscope`).

Those of a module that starts a platform for all of them stay together, or each process would start one of its own; so
do those in the studio. All others go one by one to whoever is idle, the long ones first.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "tests/browser/test_pages.py": "studio",
    "tests/browser/test_judgment.py": "studio",
    "tests/browser/test_sign_in.py": "studio",
    **{
        module: module
        for module in (
            "tests/browser/test_acts.py",
            "tests/acceptance/test_cli.py",
            "tests/acceptance/test_deploy.py",
            "tests/acceptance/test_dev.py",
            "tests/acceptance/test_flask_gunicorn.py",
            "tests/acceptance/test_flask_serve.py",
            "tests/acceptance/test_hangup.py",
            "tests/acceptance/test_jobs.py",
            "tests/acceptance/test_supervised.py",
            "tests/acceptance/test_targets.py",
        )
    },
}
LONG = (  # these would be the last ones to end, if they did not begin early
    "test_the_role_matrix_holds",
    "test_a_candidate_is_compared",
    "[tutorial/lead-scoring.md]",
    "[README.md]",
    "test_the_seven_steps",
    "[quickstart.md]",
    "[how-to/deploy-to.md]",
    "[how-to/shadow.md]",
    "test_a_mistake_of_one_point",
)


def rank(test: str) -> int:
    """By which tests are sorted."""
    return next((at for at, long in enumerate(LONG) if long in test), len(LONG))


class Stories(LoadScopeScheduling):
    """Hands them out."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0], nodeid)
