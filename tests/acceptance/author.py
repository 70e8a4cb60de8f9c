"""What an author does by hand, in the folder of an app."""

import os
import subprocess
import sys


def circuit_script(folder, *arguments, stdin=""):
    """Run the command in the app's folder; its code, what it printed, what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", "circuit_script.cli", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def write_tests(folder, text):
    (folder / "tests" / "test_app.py").write_text(text)
