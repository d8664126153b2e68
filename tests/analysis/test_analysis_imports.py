import subprocess
import sys


def test_analysis_imports_no_torch_and_no_plotting_until_asked() -> None:
    code = (
        "import sys, paramz.analysis\n"
        "assert 'matplotlib' not in sys.modules, 'matplotlib'\n"
        "import paramz.analysis.plots, paramz.analysis.report, paramz.analysis.transfer\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scipy_waits_until_something_is_fitted() -> None:
    """It takes longer to import than everything else in the analysis."""
    code = (
        "import sys, paramz.analysis, paramz.analysis.coordinates\n"
        "assert 'scipy' not in sys.modules, 'scipy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
