"""The layers of userspace/ (layers.py) hold in every include and in every link."""

import re

import pytest

from layers import LAYERS, LIBRARIES, PURE, layer_of, may_include
from source_tree import SOURCE, USERSPACE, files, includes, shown

CODE = ("**/*.h", "**/*.cc", "**/*.inc")


def is_ours(header):
    return (USERSPACE / header).exists() or (SOURCE / header).exists() or \
        header.startswith("sluice_bpf/")


def judge(layer, quoted, header):
    """Why this layer may not include this header, or None."""
    if is_ours(header):
        if not quoted:
            return "our own headers are included with quotes"
        return None if may_include(layer, header) else f"{layer.folder} is below or beside it"
    if header in PURE:
        return None
    if any(re.fullmatch(LIBRARIES[name], header) for name in layer.libraries):
        return None
    return f"{layer.folder} does not use this library"


def test_every_folder_is_a_layer():
    folders = {str(path.parent.relative_to(USERSPACE)) for pattern in CODE
               for path in USERSPACE.glob(pattern)}
    assert folders == {layer.folder for layer in LAYERS}


def test_every_include_is_allowed():
    wrong = []
    for path in files(*(f"userspace/{pattern}" for pattern in CODE)):
        layer = layer_of(str(path.parent.relative_to(USERSPACE)))
        wrong += [f"{shown(path)}:{line}: {header}: {problem}"
                  for line, quoted, header in includes(path)
                  if (problem := judge(layer, quoted, header))]
    assert not wrong, "\n".join(wrong)


def test_layers_form_no_circle():
    below = {layer.folder: {other.folder for other in LAYERS
                            if other is not layer and other.folder in layer.may_include}
             for layer in LAYERS}
    while below:
        free = {folder for folder, rest in below.items() if not rest & below.keys()}
        assert free, f"a circle among {sorted(below)}"
        below = {folder: rest for folder, rest in below.items() if folder not in free}


def test_links_follow_the_same_table():
    """A library of CMake links only what its folder may include."""
    text = (USERSPACE / "CMakeLists.txt").read_text(encoding="utf-8")
    by_target = {"sluice_" + layer.folder.replace("/", "_"): layer for layer in LAYERS}
    calls = re.findall(r"^sluice_library\((\S+?)(?:\s+DEPS([^)]*))?\)", text, re.MULTILINE)
    assert {folder for folder, _ in calls} <= {layer.folder for layer in LAYERS}
    for folder, dependencies in calls:
        layer = layer_of(folder)
        for target in re.findall(r"\bsluice_\w+", dependencies):
            if target != "sluice_bpf":
                assert may_include(layer, by_target[target].folder + "/x"), f"{folder}: {target}"
        if "sluice_bpf" in dependencies.split():
            assert may_include(layer, "bpf/include/abi.h"), folder


def test_bpf_includes_the_kernel_and_its_own_headers():
    for path in files("bpf/*.c", "bpf/include/*.h"):
        for line, quoted, header in includes(path):
            allowed = (SOURCE / "bpf/include" / header).exists() if quoted else \
                re.fullmatch(r"linux/\w+\.h|bpf/bpf_\w+\.h", header)
            assert allowed, f"{shown(path)}:{line}: {header}"


# The judge itself, so that an empty result above means something.
@pytest.mark.parametrize("folder, header, fine", [
    ("wire", "base/address.h", True),
    ("wire", "packet/packet.h", False),
    ("stages/route", "tables/route.h", True),
    ("stages/route", "stages/icmp/icmp_error.h", False),
    ("stages/parse", "dataplane/pipeline.h", False),
    ("dataplane", "io/port.h", True),
    ("dataplane", "io/sim/sim_port.h", False),
    ("io/sim", "io/af_xdp/port.h", False),
    ("control/mirror", "dataplane/worker.h", False),
    ("telemetry", "dataplane/worker.h", False),
    ("app", "dataplane/worker.h", True),
    ("dataplane", "mutex", False),
    ("stages/route", "chrono", False),
    ("base", "unistd.h", False),
    ("telemetry", "mutex", True),
    ("app", "yaml-cpp/yaml.h", False),
    ("stages/route", "support/packet_builder.h", False),
])
def test_the_judge(folder, header, fine):
    assert (judge(layer_of(folder), is_ours(header), header) is None) == fine
