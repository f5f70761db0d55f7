import subprocess
import sys


def test_proposing_needs_neither_torch_nor_another_room():
    code = (
        "import sys, search.study, search.plan, search.auto, search.racing, search.finalists\n"
        "from search.strategies import strategies\n"
        "strategies()\n"
        "rooms = {'torch', 'transformers', 'lm_eval', 'store', 'merging', 'evaluation', 'workers', 'api', 'huarizo'}\n"
        "print(sorted(rooms & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
