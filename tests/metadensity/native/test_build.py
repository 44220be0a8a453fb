"""How kernels are built, loaded and guarded: struct layouts, scratch, one build, compilers and instruction sets."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metadensity import native
from metadensity.native import additive_attention, gated_layer
from metadensity.native.build import CSRC, Arguments, Kernel, build, check_layout
from metadensity.native.calls import in_threads

COMPILERS = [name for name in ("c++", "g++", "clang++") if shutil.which(name)]
needs_compiler = pytest.mark.skipif(not COMPILERS, reason="there is no C++ compiler here")
SETS = {"AVX2": "-mavx2 -mfma", "AVX-512": "-march=skylake-avx512", "AMX": "-march=sapphirerapids"}
SOURCES = {kernel.source.stem: kernel.source for kernel in native.KERNELS}
SMALL = 'extern "C" int one() { return 1; }\n'
# The address sanitizer, for a library that Python loads; and a build that takes less time than the checks do.
SANITIZED = "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all -march=native"


@pytest.fixture
def anew() -> Iterator[None]:
    """All kernels are looked for anew, in this test and after it."""
    for kernel in native.KERNELS:
        kernel.forget()
    yield
    for kernel in native.KERNELS:
        kernel.forget()


def python(code: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def program(folder: Path, code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compile a main program that uses the common headers, and run it."""
    source, target = folder / "program.cpp", folder / "program"
    source.write_text(code)
    command = [COMPILERS[0], "-std=c++17", "-O1", "-march=native", f"-I{CSRC}", *flags, str(source), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return subprocess.run([target], capture_output=True, text=True, check=False)


@needs_compiler
def test_a_struct_in_another_order_is_refused() -> None:
    """Two fields swapped, one renamed, left out, or added; as the kernel has them it is not."""
    library = gated_layer.library()
    assert library is not None
    fields = list(gated_layer._Layer._fields_)
    check_layout(gated_layer._Layer, library.gated_layer_layout)
    swapped = [*fields[:20], fields[21], fields[20], *fields[22:]]
    renamed = [("other", fields[0][1]), *fields[1:]]
    longer = [*fields, ("more", ctypes.c_void_p)]
    for wrong in (swapped, renamed, fields[:-1], longer):
        struct = type("Wrong", (Arguments,), {"_fields_": wrong})
        with pytest.raises(RuntimeError, match="at byte"):
            check_layout(struct, library.gated_layer_layout)


@needs_compiler
def test_a_kernel_whose_struct_is_reordered_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    struct = type("Two", (Arguments,), {"_fields_": [("a", ctypes.c_int64), ("b", ctypes.c_void_p)]})
    for fields, fits in (("int64_t a; float* b;", True), ("float* b; int64_t a;", False)):
        source = tmp_path / "two.cpp"
        listed = "#define FIELDS(F, T) F(T, a) F(T, b)" if fits else "#define FIELDS(F, T) F(T, b) F(T, a)"
        source.write_text(
            f'#include "common/layout.h"\n{listed}\nstruct Two {{ {fields} }};\nLAYOUT(two, Two, FIELDS)\n'
        )
        kernel = Kernel(source, "Twos", struct, {})
        if fits:
            assert kernel.library() is not None
        else:
            with pytest.raises(RuntimeError, match="Two has 'a' at byte 0 where the C struct has 'b' at byte 0"):
                kernel.library()


def test_a_field_that_is_none_is_refused() -> None:
    layer = gated_layer._Layer(batch=3)
    layer.width = 4
    with pytest.raises(AttributeError, match="no field 'widht'"):
        layer.widht = 4
    with pytest.raises(AttributeError, match="no field 'heihgt'"):
        gated_layer._Layer(heihgt=3)


@needs_compiler
@pytest.mark.parametrize(
    ("takes", "said"),
    [
        ("Scratch s(200); s.take(64); s.take(64);", None),
        ("Scratch s(200); s.take(64); s.take(64); s.take(64);", "scratch of 200 numbers is too small for"),
        ("Scratch s(int64_t(1) << 50);", "out of memory: 4503599627370496 bytes of scratch cannot be had"),
    ],
)
def test_scratch_ends_with_a_message(takes: str, said: str | None, tmp_path: Path) -> None:
    """Also in a release build, without assertions."""
    code = f'#include "common/scratch.h"\nint main() {{ {takes} return 0; }}\n'
    ended = program(tmp_path, code, "-DNDEBUG")
    assert (ended.returncode == 0) == (said is None)
    assert said is None or f"metadensity's native kernel: {said}" in ended.stderr


@needs_compiler
def test_any_number_of_prefetches_can_be_queued(tmp_path: Path) -> None:
    """All of them are done, in a queue of twelve: 100 rows are streamed."""
    code = """
    #include "common/prefetch.h"
    static float from[100 * 40], to[100 * 40 + 1];
    int main() {
        Prefetcher queue;
        for (int i = 0; i < 100 * 40; i++) from[i] = i;
        to[100 * 40] = -1;
        for (int i = 0; i < 100; i++) queue.prefetch(from, 40), queue.stream(from + i * 40, to + i * 40, 40);
        queue.finish();
        for (int i = 0; i < 100 * 40; i++)
            if (to[i] != i) return 1;
        return to[100 * 40] != -1;
    }
    """
    assert program(tmp_path, code).returncode == 0


@needs_compiler
def test_processes_build_a_kernel_once(tmp_path: Path) -> None:
    counted, source = tmp_path / "compiler", tmp_path / "one.cpp"
    source.write_text(SMALL)
    count = f'case "$*" in *--version*) ;; *) echo x >> {tmp_path}/count; sleep 1;; esac'
    counted.write_text(f'#!/bin/sh\n{count}\nexec {COMPILERS[0]} "$@"\n')
    counted.chmod(0o755)
    code = (
        f"from pathlib import Path; from metadensity.native.build import build; print(build(Path('{tmp_path}/built'), "
    )
    code += f"Path('{source}')))"
    running = [python(code, CXX=str(counted)) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in running]
    assert {out for out, _ in said} == {f"{next(tmp_path.glob('built/*.so'))}\n"}, said
    assert (tmp_path / "count").read_text().count("x") == 1
    assert sorted(err.count("compiling one.cpp") for _, err in said) == [0, 1], "one line says that it compiles"


@needs_compiler
def test_what_a_kernel_is_kept_under(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash of the compiler, its version, flags and sources: another of one of them is another kernel."""
    source, compiler = tmp_path / "one.cpp", tmp_path / "compiler"
    source.write_text(SMALL)
    monkeypatch.setenv("CXX", str(compiler))
    found = []
    for version, flags in (("12", ""), ("13", ""), ("13", "-DMORE"), ("13", "-mavx2 -mfma"), ("13", "")):
        compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\nexec {COMPILERS[0]} "$@"\n')
        compiler.chmod(0o755)
        monkeypatch.setenv("METADENSITY_NATIVE_FLAGS", flags)
        found.append(build(tmp_path, source))
    assert len(set(found)) == 4
    assert found[1] == found[4]


@needs_compiler
def test_flags_take_the_place_of_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "wide.cpp"
    source.write_text('#include "common/simd.h"\nextern "C" int width() { return WIDTH; }\n')
    widths = []
    for flags in ("-mavx2 -mfma", "-march=skylake-avx512"):
        monkeypatch.setenv("METADENSITY_NATIVE_FLAGS", flags)
        widths.append(ctypes.CDLL(str(build(tmp_path, source))).width())
    assert widths == [8, 16]


@pytest.mark.usefixtures("anew")
def test_one_visible_line_says_why_all_is_slow(tmp_path: Path) -> None:
    """In a process that has set up no logging, with warnings as errors; none where it was asked for."""
    code = "from metadensity import native\nassert not native.available()\nprint(native.why_not())\n"
    code += "for kernel in native.KERNELS: assert kernel.library() is None"
    for setting, lines in (({"CXX": "no-such-compiler"}, 1), ({"METADENSITY_NATIVE": "0"}, 0)):
        running = python(code, XDG_CACHE_HOME=str(tmp_path), PYTHONWARNINGS="error", **setting)
        out, err = running.communicate(timeout=300)
        assert running.returncode == 0, err
        assert err.count("run in torch alone") == len(err.splitlines()) == lines
        assert ("no-such-compiler" if lines else "switched off") in out


@needs_compiler
def test_kernels_can_be_switched_off_for_a_while() -> None:
    inputs = [torch.ones(1, 3, 2), torch.ones(1, 2, 2), torch.ones(1, 2, 2), torch.ones(1, 2)]
    assert native.available()
    assert native.why_not() is None
    assert additive_attention.possible(*inputs)
    with native.disabled():
        assert not native.available()
        assert native.why_not() == "inside metadensity.native.disabled()"
        assert not additive_attention.possible(*inputs)
    assert native.available()


@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # Python 3.12: of forking with threads, on purpose
def test_threads_live_in_a_forked_process() -> None:
    done: list[int] = []
    in_threads(lambda thread, *_: done.append(thread), [(0, 1), (1, 2), (2, 3)])
    assert sorted(done) == [0, 1, 2]
    if not (child := os.fork()):
        again: list[int] = []
        in_threads(lambda thread, *_: again.append(thread), [(0, 1), (1, 2), (2, 3)])
        os._exit(sorted(again) != [0, 1, 2])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_compiler
@pytest.mark.parametrize("compiler", [name for name in COMPILERS if name != "c++"] or COMPILERS)
@pytest.mark.parametrize("flags", SETS.values(), ids=SETS)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_all_instruction_sets_compile_without_a_warning(source: Path, flags: str, compiler: str) -> None:
    """Whatever this machine has. Not optimised: GCC then warns of its own headers, and takes ten times as long."""
    strict = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-std=c++17", f"-I{CSRC}"]
    command = [compiler, *strict, *flags.split(), str(source)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@needs_compiler
def test_a_warning_would_be_seen(tmp_path: Path) -> None:
    """The negative control of the compilation: a variable that nothing uses, in a branch for tiles alone."""
    source = tmp_path / "bad.cpp"
    source.write_text("int f() {\n#ifdef __AMX_TILE__\n    int unused;\n#endif\n    return 0;\n}\n")
    with pytest.raises(AssertionError, match="unused"):
        test_all_instruction_sets_compile_without_a_warning(source, SETS["AMX"], COMPILERS[0])


def pytest_in_process(selected: list[str], **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *selected]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert re.search(r"\d+ passed", ended.stdout)


def has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


LAYERS = "tests/metadensity/native/test_gated_layer.py::test_equal_to_torch"
SEQUENCES = "tests/metadensity/native/test_sequence_layers.py::test_equal_to_torch"
ATTENTIONS = "tests/metadensity/native/test_additive_attention.py::test_equal_to_the_plain_form"


@needs_compiler
@pytest.mark.skipif(not has_avx512(), reason="the processor has no more than AVX2, which all other tests run")
def test_avx2_gives_the_same() -> None:
    """The numeric tests of layers and attention in vectors of eight, on a machine that has wider ones."""
    pytest_in_process(
        [LAYERS, SEQUENCES, ATTENTIONS, "-k", "float32 or plain_form"], METADENSITY_NATIVE_FLAGS=SETS["AVX2"]
    )


def sanitizer() -> str | None:
    """The runtime of the address sanitizer that has to be loaded before Python."""
    if not COMPILERS:
        return None
    named = subprocess.run([COMPILERS[0], "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    found = named.stdout.strip()
    return found if os.path.isabs(found) else None


needs_sanitizer = pytest.mark.skipif(sanitizer() is None, reason="the compiler has no runtime of the address sanitizer")


@needs_sanitizer
def test_an_overflow_would_be_seen(tmp_path: Path) -> None:
    """The negative control of the next test: a kernel that writes a vector too far into its scratch."""
    code = (
        '#include "common/scratch.h"\nint main() {{ Scratch s(400); float* at = s.take(64); at[{}] = 1; s.take(64); }}'
    )
    flags = SANITIZED.split()
    assert program(tmp_path, code.format("64 + WIDTH - 1"), *flags).returncode == 0
    ended = program(tmp_path, code.format("64 + WIDTH"), *flags)
    assert ended.returncode
    assert "use-after-poison" in ended.stderr


@needs_sanitizer
def test_layers_and_attention_under_sanitizers() -> None:
    """Address and undefined behaviour: in float32 and, where the processor has tiles, bfloat16; outputs and gradients,
    on one thread and two, of layers of all kinds and sizes but the largest, and of attention; the sampler in float32.

    Python itself is not built for the sanitizers: leaks are not looked for.
    """
    sampler = "tests/metadensity/sampling/test_sampling.py::test_threads_share_a_batch"
    pytest_in_process(
        [LAYERS, SEQUENCES, ATTENTIONS, sampler, "-k", "not paper and not wide and not many"],
        METADENSITY_NATIVE_FLAGS=SANITIZED,
        LD_PRELOAD=sanitizer() or "",
        ASAN_OPTIONS="detect_leaks=0",
    )
