"""What each mistake says: five lines, word for word in tests/golden/mistakes_*.txt, and the caret under its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sympy

import sparsedsl
from sparsedsl.cli import main
from sparsedsl.cursor import DEEPEST
from sparsedsl.errors import SparseDSLError
from sparsedsl.text import LONGEST_TEXT, parse
from tests.sparsedsl.five_lines import assert_five_lines

NAMES = {name: getattr(sparsedsl, name) for name in (*sparsedsl.__all__, "q", "k") if name != "compile"} | {
    "sympy": sympy,
    "p": sparsedsl.sliding(4),
    "heads": sparsedsl.per_head([sparsedsl.sliding(4)] * 2),
    "stack": sparsedsl.cycle([sparsedsl.sliding(4)], layers=3),
}

# A text, and the part of it over the carets; "" for its end.
TEXTS = [
    # names
    ("slidng(4)", "slidng"),
    ("sink(1) | slidng(4)", "slidng"),
    ("q - k < 4", "q"),
    ("sliding(windw=4)", "windw"),
    ("where(x < 4)", "x"),
    ("where(q - k < n)", "n"),
    ("where(q = k)", "q"),
    ("sliding(4).block(64)", "block"),
    # halves
    ("sliding(4", "("),
    ("(sliding(4) | sink(1)", "("),
    ("sliding(4) |", ""),
    ("sliding(", ""),
    ("| sliding(4)", "|"),
    ("sliding(4))", ")"),
    ("sliding(4]", "]"),
    ("sliding(4) sink(1)", "sink"),
    ("sliding 4", "sliding"),
    ("per_head([causal(), ", ""),
    ("causal().blocks", ""),
    ("where(q < 4 and)", ")"),
    ("where('k <')", "'"),
    ("where('q < 4)", "'"),
    # wrong operators and characters
    ("sliding(4) or sink(1)", "sliding(4) or sink(1)"),
    ("sliding(4) and sink(1)", "sliding(4) and sink(1)"),
    ("not sliding(4)", "not sliding(4)"),
    ("sliding(4) || sink(1)", "|"),
    ("sliding(4) + sink(1)", "sliding(4) + sink(1)"),
    ("sliding(4) ^ sink(1)", "^"),
    ("sliding(4) ∪ sink(1)", "∪"),
    ("-sliding(4)", "-sliding(4)"),
    ("~4", "~4"),
    ("cycle([causal()], layers=2) & causal()", "cycle([causal()], layers=2) & causal()"),
    ("sliding(“4”)", "“"),
    ("sliding(4) # near", "#"),
    ("where(q / 2 < k)", "/"),
    ("where(q - k < 4 & k % 2 == 0)", "4 & k % 2"),
    ("where(q % k == 0)", "q % k"),
    ("where(q // 0 < 1)", "q // 0"),
    ("where(q < causal())", "causal"),
    # arguments
    ("sliding('4')", "sliding('4')"),
    ("sliding(4.5)", "sliding(4.5)"),
    ("sliding(0)", "sliding(0)"),
    ("sliding(4) | sliding(-3)", "sliding(-3)"),
    ("sliding(4, ahead=-1)", "sliding(4, ahead=-1)"),
    ("sliding(window=4, window=5)", "window"),
    ("sliding(window=4, 5)", "5"),
    ("dilated(4, 0)", "dilated(4, 0)"),
    ("power(base=1)", "power(base=1)"),
    ("sink(0)", "sink(0)"),
    ("offsets({})", "offsets({})"),
    ("offsets({1.5})", "1.5"),
    ("random_blocks(64, 2, seed=-1)", "random_blocks(64, 2, seed=-1)"),
    ("per_head(sliding(4))", "per_head(sliding(4))"),
    ("per_head([])", "per_head([])"),
    ("per_head([causal()] * 2) | per_head([causal()] * 3)", "per_head([causal()] * 2) | per_head([causal()] * 3)"),
    ("cycle([causal()], layers=0)", "cycle([causal()], layers=0)"),
    ("sliding(4).blocks(0)", "sliding(4).blocks(0)"),
    ("where(4)", "where(4)"),
    ("where(q)", "where(q)"),
    ("4", "4"),
    ("[causal()]", "[causal()]"),
    # what does not fit
    ("sliding(2**63)", "2**63"),
    ("sliding(99999999999999999999)", "99999999999999999999"),
    ("sliding(1e400)", "1e400"),
    ("sliding(1__0)", "1__0"),
    ("per_head([causal()] * 10**9)", "[causal()] * 10**9"),
    ("per_head([causal()] * -1)", "[causal()] * -1"),
    ("where(q * q * q < 1)", "q * q * q"),
    ("where(q**9 < 4)", "q**9"),
    # Python that is not the language
    ("__import__('os').system('true')", "__import__"),
    ("().__class__", ")"),
    ("sliding(4).__class__", "__class__"),
    ("sliding(4).dense(4)", "dense"),
    ("__builtins__", "__builtins__"),
    ("eval('1')", "eval"),
    ("lambda: causal()", ":"),
    ("[x for x in [causal()]]", "x"),
    ("causal(); sink(1)", ";"),
    ("sliding(*[4])", "*"),
    ("where('__import__(1)')", "__import__"),
    ("where(q.__class__)", "__class__"),
]

CALLS = [
    "sliding(0)",
    "sliding(-3)",
    "sliding('4')",
    "sliding(4.0)",
    "sliding(True)",
    "sliding(2**41)",
    "sliding(10**5000)",
    "sliding(4, ahead=-1)",
    "dilated(4, -1)",
    "dilated(0, 2)",
    "power(base=1)",
    "sink(0)",
    "strided(0)",
    "chunked(None)",
    "offsets(4)",
    "offsets([])",
    "offsets(['a'])",
    "offsets([1, 10**30])",
    "random_blocks(64, 0)",
    "random_blocks(64, 2, seed=1.5)",
    "per_head([])",
    "per_head(p)",
    "per_head([p, 4])",
    "per_head([heads])",
    "Stack([p, 4])",
    "Stack(4)",
    "Stack([p], layers=0)",
    "cycle([], layers=4)",
    "stack[3]",
    "stack['a']",
    "stack[:2]",
    "p.blocks(0)",
    "p.blocks('a')",
    "p.dense(-1)",
    "p.dense(4, 4, q_start=1.5)",
    "bool(p)",
    "p and sink(1)",
    "not heads",
    "causal() if stack else p",
    "p | 4",
    "4 | p",
    "p | sink",
    "sink & p",
    "p - 'sink(1)'",
    "[p] - p",
    "p | stack",
    "stack | p",
    "heads & [p, p]",
    "heads & per_head([p])",
    "where(4)",
    "where(q == k)",
    "where(q)",
    "where('')",
    "where(lambda q, k: q < k)",
    "where(sympy.Symbol('n') < 4)",
    "where(sympy.sin(q) < 1)",
    "where(sympy.sqrt(2) < q)",
    "where(q / k < 1)",
    "where(q % k < 1)",
    "where(sympy.Xor(q < 4, k < 4))",
    "where(q**20 < 1)",
    "where(q**3 < k)",
    "parse(4)",
    "parse(' ')",
    "parse(b'causal()')",
    "check(4)",
    "check('sliding(4)')",
    "check(p, seq_len=0)",
    "check(p, seq_len=1.5)",
    "check(p, layers=0)",
    "check(p, seq_len=2**40)",
    "check(stack, layers=4)",
    "check(sliding(4, ahead=1), seq_len=10**6)",
]

Golden = Callable[[str, str], None]


def told(call: Callable[[], object]) -> str:
    """The text of the mistake in a call."""
    with pytest.raises(SparseDSLError) as caught:
        call()
    assert_five_lines(str(caught.value))
    return str(caught.value)


def parse_told(text: str) -> str:
    return told(lambda: parse(text))


def test_mistakes_in_texts_word_for_word(golden: Golden) -> None:
    golden("mistakes_texts.txt", "\n\n".join(parse_told(text) for text, _ in TEXTS) + "\n")


def test_mistakes_in_calls_word_for_word(golden: Golden) -> None:
    told_calls = [f">>> {call}\n{told(lambda call=call: eval(call, dict(NAMES)))}" for call in CALLS]  # type: ignore[misc]
    golden("mistakes_calls.txt", "\n\n".join(told_calls) + "\n")


@pytest.mark.parametrize(("text", "part"), TEXTS)
def test_the_carets_stand_under_the_mistake(text: str, part: str) -> None:
    lines = parse_told(text).splitlines()
    where = next(i for i, line in enumerate(lines) if line.startswith("  where"))
    shown, carets = lines[where][12:], lines[where + 1][12:]
    assert shown == text
    assert set(carets) == {" ", "^"} or set(carets) == {"^"}
    start = carets.index("^")
    assert text[start : len(carets)] == part
    assert len(carets) - start == max(1, len(part))
    assert part or start == len(text)


def test_the_line_of_the_mistake_is_shown() -> None:
    lines = parse_told("sliding(4)\n  | sink(0)\n  | causal()").splitlines()
    assert lines[1:3] == ["  where       | sink(0)", "                ^^^^^^^"]


def test_a_long_line_is_cut_around_the_mistake() -> None:
    text = " | ".join(f"sink({n})" for n in range(1, 200)) + " | sink(0) | " + " | ".join(["causal()"] * 50)
    lines = parse_told(text).splitlines()
    shown, carets = lines[1][12:], lines[2][12:]
    assert shown.startswith("...")
    assert shown.endswith("...")
    assert len(shown) < 110
    assert shown[carets.index("^") : len(carets)] == "sink(0)"


# --- hostile texts: a bounded answer in bounded time


DEEP: dict[str, Callable[[int], str]] = {
    "parentheses": lambda n: "(" * n + "causal()" + ")" * n,
    "complements": lambda n: "~" * n + "causal()",
    "signs": lambda n: f"sliding({'-' * n}1)",
    "blocks": lambda n: "causal()" + ".blocks(2)" * n,
    "lists": lambda n: f"per_head({'[' * n}{']' * n})",
    "calls": lambda n: "per_head([" * n + "causal()" + "])" * n,
    "differences": lambda n: " - ".join(["causal()"] * n),
    "open calls": lambda n: "sliding(" * n,
    "powers": lambda n: f"sliding({'1**' * n}1)",
    "not": lambda n: f"where({'not ' * n}q < 1)",
    "sums": lambda n: f"where({'q + ' * n}q < 1)",
    "alternating": lambda n: "causal() & (sink(1) | " * n + "causal()" + ")" * n,
    "quoted": lambda n: f"where('{'(' * n}q < 1{')' * n}')",
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_has_a_clear_bound(name: str) -> None:
    for depth in (DEEPEST + 2, 1000, 6000):
        lines = parse_told(DEEP[name](depth)).splitlines()
        assert lines[0] == "SyntaxMistake: the text is nested too deeply"
        assert f"  expected  at most {DEEPEST} levels" in lines


@pytest.mark.parametrize("name", ["parentheses", "complements", "blocks", "differences", "sums", "not"])
def test_what_is_read_can_be_printed_compared_and_lowered(name: str) -> None:
    # Two levels go to the call and its argument.
    value = parse(DEEP[name](DEEPEST - 4 if name != "not" else DEEPEST // 2 - 2))
    assert parse(str(value)) == value
    assert hash(value) == hash(parse(str(value)))
    assert isinstance(value, sparsedsl.Pattern)
    assert value.dense(3).shape == (3, 3)


def test_wide_texts_are_read_whole() -> None:
    value = parse(" | ".join(f"sink({n})" for n in range(1, 3001)))
    assert isinstance(value, sparsedsl.Pattern)
    assert value.dense(2, 3002, q_start=0).sum() == 2 * 3000
    assert str(parse(f"offsets([{'1, ' * 20000}])")) == "offsets({1})"


def test_a_text_is_bounded_in_length() -> None:
    assert parse(" " * (LONGEST_TEXT - 8) + "causal()") == sparsedsl.causal()
    for text in ("causal()" + " " * LONGEST_TEXT, "(" * 10**6):
        lines = parse_told(text).splitlines()
        assert lines[0] == "SyntaxMistake: the text is too long"
        assert f"  expected  at most {LONGEST_TEXT} characters" in lines


@pytest.mark.parametrize("digits", [63, 4301, 100_000])
def test_numbers_are_bounded(digits: int) -> None:
    lines = parse_told(f"sliding({'9' * digits})").splitlines()
    assert lines[0] == "WrongValue: a number is too large"
    assert lines[3].startswith("  got       99999")
    assert len(lines[3]) < 80


@pytest.mark.parametrize("letter", ["\x00", "\x1b", "\u202e", "\ufeff"])
def test_what_does_not_print_is_numbered_and_not_shown(letter: str) -> None:
    shown = parse_told(f"sliding(4){letter}")
    assert letter not in shown
    assert f"  got       character number {ord(letter)}" in shown.splitlines()


# --- the command line


def test_usage_mistakes_have_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for words, got in (
        ([], "the following arguments are required: COMMAND"),
        (["chek", "causal()"], "argument COMMAND: invalid choice: 'chek'"),
        (["check"], "the following arguments are required: PATTERN"),
        (["check", "causal()", "--seq-len"], "argument --seq-len: expected one argument"),
        (["check", "causal()", "--seq-len", "1e6"], "argument --seq-len: invalid int value: '1e6'"),
        (["check", "causal()", "--layers", "x"], "argument --layers: invalid int value: 'x'"),
        (["check", "causal()", "--path", "5"], "argument --path: expected 2 arguments"),
        (["check", "causal()", "--path", "a", "b"], "argument --path: invalid int value: 'a'"),
        (["check", "causal()", "--seqlen", "5"], "unrecognized arguments: --seqlen 5"),
        (["check", "causal()", "sink(1)"], "unrecognized arguments: 'sink(1)'"),
        (["build", "causal()"], "the following arguments are required: -o/--output"),
        (["patterns", "all"], "unrecognized arguments: all"),
    ):
        assert main(words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert_five_lines(captured.err)
        lines = captured.err.splitlines()
        assert lines[0] == "WrongValue: the command line does not fit"
        assert lines[1] == " ".join(["  where     sparsedsl", *(f"'{w}'" if "(" in w else w for w in words)])
        assert lines[2].startswith(f"  got       {got}")
        known = words and words[0] in ("check", "build", "patterns")
        command = f"sparsedsl {words[0]}" if known else "sparsedsl"
        assert lines[3].startswith(f"  expected  {command} [-h]")
        assert lines[4] == f"  try       {command} --help"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            "check sliding(4) --seq-len 0",
            [
                "WrongValue: seq_len is out of range",
                "  where     check(seq_len=0)",
                "  got       seq_len = 0",
                "  expected  1 <= seq_len <= 2**40",
                "  try       check(seq_len=1)",
            ],
        ),
        (
            "check sliding(4) --layers -1",
            [
                "WrongValue: layers is out of range",
                "  where     check(layers=-1)",
                "  got       layers = -1",
                "  expected  1 <= layers <= 2**40",
                "  try       check(layers=1)",
            ],
        ),
        (
            "check sliding(4) --seq-len 100 --path 5 100",
            [
                "OutOfRange: the path must join two tokens of the sequence",
                "  where     --path 5 100",
                "  got       k = 100, seq_len = 100",
                "  expected  0 <= k < 100",
                "  try       --path 99 0",
            ],
        ),
        (
            "check sliding(4) --seq-len 100 --path -1 0",
            [
                "OutOfRange: the path must join two tokens of the sequence",
                "  where     --path -1 0",
                "  got       q = -1, seq_len = 100",
                "  expected  0 <= q < 100",
                "  try       --path 99 0",
            ],
        ),
        (
            "build sliding(4) -o no/such/folder/x.py",
            [
                "WrongValue: the kernels can't be written",
                "  where     sparsedsl build 'sliding(4)' -o no/such/folder/x.py",
                "  got       no/such/folder/x.py: No such file or directory",
                "  expected  a place that may be written: a file in a folder that exists, or a folder",
                "  try       -o attention.py",
            ],
        ),
        (
            "build cycle([sliding(4)],layers=3) -o x.py",
            [
                "Unsupported: a stack has a pattern for each layer, a kernel has one",
                "  where     build(cycle([sliding(4)], layers=3))",
                "  got       a Stack of 3 layers",
                "  expected  one layer's pattern",
                "  try       sparsedsl build STACK -o kernels/",
            ],
        ),
        (
            "build sliding(4) -o x.py --tiling half128 --tiling half256",
            [
                "WrongValue: a module has one tiling",
                "  where     sparsedsl build 'sliding(4)' -o x.py --tiling half128 --tiling half256",
                "  got       --tiling half128 --tiling half256",
                "  expected  one, or a package",
                "  try       -o x/",
            ],
        ),
        (
            "build sliding(4) -o x.py --aot sm_90",
            [
                "WrongValue: a module holds text only",
                "  where     sparsedsl build 'sliding(4)' -o x.py --aot sm_90",
                "  got       --aot sm_90",
                "  expected  a package where kernels are compiled ahead",
                "  try       -o x/",
            ],
        ),
        (
            "build sliding(4) -o x/ --aot hopper",
            [
                "WrongValue: no such GPU architecture",
                "  where     sparsedsl build 'sliding(4)' -o x/ --aot hopper",
                "  got       --aot hopper",
                "  expected  sm_ and a compute capability, several with commas between",
                "  try       --aot sm_90",
            ],
        ),
        (
            "build sliding(4) -o x/ --aot sm_90 --calls training",
            [
                "WrongValue: no such kind of call",
                "  where     sparsedsl build 'sliding(4)' -o x/ --aot sm_90 --calls training",
                "  got       --calls training",
                "  expected  of ordinary, packed, cached, several with commas between",
                "  try       --calls ordinary,packed,cached",
            ],
        ),
        (
            "build sliding(4) -o x/ --aot sm_90 --head-dim 512",
            [
                "OutOfRange: the package has no kernels for this head dim and type",
                "  where     build",
                "  got       head dim 512, torch.bfloat16; tilings half128, half256, single128, single256",
                "  expected  up to 128 in 2 bytes, up to 256 in 2 bytes, up to 128 in 4 bytes, up to 256 in 4 bytes",
                "  try       a head dim of the model, or another --tiling",
            ],
        ),
        (
            "build sliding(4) -o two-words/",
            [
                "WrongValue: a package needs a name that can be imported",
                "  where     -o two-words/",
                "  got       two-words",
                "  expected  letters, digits and _, no digit first",
                "  try       -o two_words/",
            ],
        ),
    ],
)
def test_wrong_values_word_for_word(words: str, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines() == lines
    assert captured.out == ""
