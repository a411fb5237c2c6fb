"""From source to ELF with GNU as and ld, and what is said where they are missing or complain."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from own_examples import HOBBY, MANIFEST, elf

from fuzzer.case_fields import CaseError
from fuzzer.targets.own.link import linked
from fuzzer.targets.own.manifest import Manifest, read_manifest
from fuzzer.targets.own.placement import DATA_START, TEXT_START
from fuzzer.targets.own.program import read_program
from fuzzer.targets.own.recorder import stub_address
from fuzzer.targets.own.target import own_target

MISSING = [tool for tool in ("as", "ld") if shutil.which(tool) is None]
needs_binutils = pytest.mark.skipif(bool(MISSING), reason=f"GNU binutils are not installed: {', '.join(MISSING)}")

SOURCE = """\
        .globl syscall_entry, nmi, page_fault, timer, cpu0
        .text
syscall_entry:
nmi:
page_fault:
timer:  call    do_all
        incq    counter(%rip)
        iretq
        .data
cpu0:   .quad   0, 0
counter: .quad  0
"""


@pytest.fixture
def manifest() -> Manifest:
    return read_manifest(MANIFEST, "tiny.toml")


def source(folder: Path, text: str) -> Path:
    file = folder / "tiny.S"
    file.write_text(text)
    return file


def refusal(file: Path, manifest: Manifest) -> str:
    with pytest.raises(CaseError) as error:
        linked(file, manifest)
    assert "\n" not in str(error.value)
    return str(error.value)


@needs_binutils
def test_source_is_assembled_and_linked_to_its_places(tmp_path: Path, manifest: Manifest) -> None:
    program = read_program(linked(source(tmp_path, SOURCE), manifest), "tiny.elf")

    assert program.symbols["timer"] == TEXT_START
    assert program.symbols["cpu0"] == DATA_START
    assert program.symbols["do_all"] == stub_address(1)


@needs_binutils
def test_the_committed_example_is_what_its_source_makes() -> None:
    manifest = read_manifest((HOBBY / "hobby.toml").read_text(), "hobby.toml")

    made = read_program(linked(HOBBY / "hobby.S", manifest), "made")
    committed = read_program((HOBBY / "hobby.elf").read_bytes(), "committed")

    assert (made.segments, made.symbols) == (committed.segments, committed.symbols)


@needs_binutils
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("do_all", "do_al", ': "do_al" is used and not defined; did you mean the handler "do_all"?', id="close-to-a-handler"),
        pytest.param(
            "do_all",
            "printk",
            ': "printk" is used and not defined; define it, or name it in tiny.toml as [handlers.printk], and a recorder takes its place',
            id="not-defined",
        ),
        pytest.param("iretq", "iretqq", ": line 8: no such instruction: `iretqq'", id="not-an-instruction"),
        pytest.param(
            "counter(%rip)",
            "0x10000000000 + counter(%rip)",
            "too far away for R_X86_64_PC32; reach it by movabs, or by its offset in the per-CPU area through GS",
            id="too-far",
        ),
    ],
)
def test_what_the_tools_complain_about_is_told_in_one_line(tmp_path: Path, manifest: Manifest, old: str, new: str, message: str) -> None:
    assert message in refusal(source(tmp_path, SOURCE.replace(old, new)), manifest)


@pytest.mark.parametrize(("code", "tool"), [pytest.param(SOURCE.encode(), "as", id="source"), pytest.param(elf(kind=1), "ld", id="object")])
def test_without_binutils_that_is_what_is_said(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, code: bytes, tool: str
) -> None:
    file = tmp_path / "tiny.S"
    file.write_bytes(code)
    monkeypatch.setenv("PATH", str(tmp_path))

    told = refusal(file, manifest)

    assert told == f"{file}: GNU {tool} not found on PATH; install binutils or give a linked ELF file"


def test_a_linked_file_needs_no_tools(tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.elf"
    file.write_bytes(elf())
    monkeypatch.setenv("PATH", str(tmp_path))

    assert linked(file, manifest) == elf()


@needs_binutils
def test_the_command_of_the_guide_links_to_the_right_places(tmp_path: Path, manifest: Manifest) -> None:
    """Options for `ld` alone, with constants and handlers in the file: the headers that it puts before the code are not loaded."""
    text = SOURCE + '        .text\ndo_all:  ret\n        .section .rodata\nname:   .asciz "tiny"\n'
    guide = (HOBBY.parents[1] / "docs" / "bring-your-own-entry-code.md").read_text()
    options = re.findall(r"`ld (-Ttext=0x\w+) (-Tdata=0x\w+)`", guide)[0]
    subprocess.run(["as", "-o", tmp_path / "tiny.o", source(tmp_path, text)], check=True)
    subprocess.run(["ld", "-static", *options, "-o", tmp_path / "tiny", tmp_path / "tiny.o"], check=True, stderr=subprocess.DEVNULL)

    own = own_target(manifest, read_program(linked(tmp_path / "tiny", manifest), "tiny"))

    assert own.target.symbols["timer"] == TEXT_START
    assert own.target.symbols["do_all"] > TEXT_START


def test_a_file_that_is_not_there_is_named(tmp_path: Path, manifest: Manifest) -> None:
    assert re.search(r"absent\.S: cannot be read: No such file or directory$", refusal(tmp_path / "absent.S", manifest))
