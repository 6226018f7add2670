"""`sparsedsl prove`: its forms, its exit status, its start-up."""

from __future__ import annotations

import json
import subprocess
import sys
from time import perf_counter

import pytest

import sparsedsl as sd
from sparsedsl.cli import main


def test_text_says_statement_depth_inverse_and_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "sliding(5)"]) == 0
    assert capsys.readouterr().out.splitlines()[:8] == [
        "pattern     sliding(5)",
        "statement   complete for every N",
        "depth       depth(N) = ceiling((N - 1)/4) exactly, for every N >= 2",
        "inverse     layers and the N up to which they are complete: 1: 5, 2: 9, 3: 13, 4: 17, 5: 21, 6: 25",
        "proof",
        "  1. neighbours: E(q, q - 1) = 1 for q >= 1",
        "     each token reads the one before it, so enough layers join all tokens; depth is a matter of counting",
        "  2. base: R(0) = 0",
    ]


@pytest.mark.parametrize(
    ("text", "status", "line"),
    [
        ("power()", 0, "depth       depth(N) = floor(log2(N)) exactly, for every N >= 2"),
        (
            "power_attention()",
            0,
            "depth       depth(N) = 1 if N <= 1536, else ceiling(log2(ceiling(N/256) + 2)) - 2 exactly, "
            "for every N >= 2",
        ),
        (
            "chunked(8) & causal()",
            1,
            "statement   never complete: incomplete for every N >= 9 with any number of layers, "
            "and that is the least such length",
        ),
        ("wavenet(layers=5)", 1, "statement   this stack is complete up to N = 32, incomplete for every N >= 33"),
        (
            "sliding(4, ahead=2)",
            1,
            "statement   no proof found, neither that it is complete for every N nor that it ever fails",
        ),
        (
            "(sliding(4) | chunked(6)) & causal()",
            0,
            "depth       at most ceiling((N - 1)/3) and at least ceiling((N - 1)/5) layers, for every N >= 2",
        ),
    ],
)
def test_exit_status_and_statement(capsys: pytest.CaptureFixture[str], text: str, status: int, line: str) -> None:
    assert main(["prove", text]) == status
    assert line in capsys.readouterr().out.splitlines()


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "sliding(5)", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["complete"], said["exact"], said["depth_upper"]) == (True, True, "ceiling((N - 1)/4)")
    assert said["lengths"][0] == {"layers": 1, "at_least": 5, "at_most": 5}
    assert [step["lemma"] for step in said["steps"]] == ["neighbours", "base", "step", "largest distance"]


def test_markdown_and_latex_have_formulas_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "sliding(5)", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("### `sliding(5)`")
    assert r"= \left\lceil{\frac{N - 1}{4}}\right\rceil$ exactly" in page
    assert main(["prove", "chunked(8) & causal()", "--latex"]) == 1
    paper = capsys.readouterr().out
    assert r"\texttt{chunked(8) \& causal()}" in paper
    assert r"$N \ge 9$" in paper
    assert paper.count(r"\begin{") == paper.count(r"\end{") == 3
    assert paper.isascii()


def test_no_residual(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "power()", "--no-residual"]) == 0
    assert main(["prove", "power_theorem()", "--no-residual"]) == 1
    assert "incomplete for every N >= 1 " in capsys.readouterr().out


def test_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "sliding(0)"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "EmptyWindow: the window holds no key"
    assert main(["prove", "sliding(4)", "--json", "--latex"]) == 2
    with pytest.raises(sd.SparseDSLError) as error:
        sd.prove("sliding(4)")  # type: ignore[arg-type]
    assert str(error.value).splitlines() == [
        "WrongType: prove takes a pattern",
        "  where     prove(...)",
        "  got       'sliding(4)' of type str",
        "  expected  a pattern, a per-head pattern or a stack of layers",
        "  try       prove(sliding(1024) | power())",
    ]


@pytest.mark.parametrize("text", ["power_attention()", "sparse_transformer_fixed()"])
def test_a_whole_process_is_short_and_loads_no_torch(text: str) -> None:
    program = (
        f"import sys; from sparsedsl.cli import main; s = main(['prove', {text!r}]); assert 'torch' not in sys.modules"
    )
    start = perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    # 0.6 and 1.5 seconds on an idle core.
    assert perf_counter() - start < 10
