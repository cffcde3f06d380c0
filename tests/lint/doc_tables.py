"""Tables in the documentation that repeat what the code says.

    /usr/bin/python3 tests/lint/doc_tables.py     writes them anew; docs_test.py compares

A table stands between <!-- table: NAME --> and <!-- /table -->.
"""

import re

from layers import LAYERS
from source_tree import SOURCE, table, xdp_reasons


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def reasons(macro, name):
    return markdown(["`reason`", "what happened"],
                    [[f"`{label}`", text.strip('"')] for _, label, text in table(macro, name)])


def layers():
    def names(items):
        return ", ".join(f"`{item}`" for item in items) or "-"

    def allowed(layer):
        if "*" in layer.may_include:
            return "all of them"
        stages = [item for item in layer.may_include if item.startswith("stages/")]
        rest = [item for item in layer.may_include if item not in stages]
        return names((["stages/*"] if stages else []) + rest)

    rows, stages = [], [layer for layer in LAYERS if layer.folder.startswith("stages/")]
    for layer in LAYERS:
        if layer in stages:
            if layer is stages[0]:
                rows.append(["`stages/*`", layer.duty, allowed(layer), names(layer.libraries)])
            continue
        rows.append([f"`{layer.folder}`", layer.duty, allowed(layer), names(layer.libraries)])
    return markdown(["folder", "holds", "may include", "and these libraries"], rows)


def nftables():
    words = (SOURCE / "tests/unit/control/ruleset/nft_words.inc").read_text(encoding="utf-8")
    rows = re.findall(r'^SLUICE_NFT\((\w+), "([\w, ]+)", "((?:[^"\\]|\\.)*)", R"\(\n.*?\n\)"\)$',
                      words, re.MULTILINE | re.DOTALL)
    assert len(rows) == len(re.findall(r"^SLUICE_NFT\(", words, re.MULTILINE)) > 5
    by = {"kSluice": "Sluice", "kKernel": "the kernel"}
    return markdown(["", "a rule may say", "carried out by"],
                    [[kind, text.replace('\\"', '"'), by[who]] for who, kind, text in rows])


def service_keys():
    code = (SOURCE / "userspace/control/service_keys.inc").read_text(encoding="utf-8")
    rows = re.findall(r'^SLUICE_SERVICE_KEY\("([^"]*)", "([^"]*)", "([^"]*)", "([^"]*)", "([^"]*)"\)$',
                      code, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^SLUICE_SERVICE_KEY\(", code, re.MULTILINE)) > 5
    return markdown(["key", "of", "value", "default", ""],
                    [[f"`{key}`", kinds.replace(" ", ", "), value, standard, text]
                     for key, kinds, value, standard, text in rows])


def flow_tier():
    code = (SOURCE / "userspace/stages/filter/flow_path.cc").read_text(encoding="utf-8")
    rows = re.findall(r'^    \{"(\w+)", "([^"]*)"\},$', code, re.MULTILINE)
    assert len(rows) == len(re.findall(r'^    \{"', code, re.MULTILINE)) > 5
    # Those that a rule gives.
    texts = [text for label, text in rows if label not in ("none", "form")]
    return markdown(["not XDP, since"], [[text] for text in texts])


TABLES = {
    "drop reasons": lambda: reasons("SLUICE_DROP", "base/drop_reasons.inc"),
    "punt reasons": lambda: reasons("SLUICE_PUNT", "base/punt_reasons.inc"),
    "xdp reasons": lambda: markdown(
        ["`action`", "`reason`", "which packets"],
        [[f"`{action}`", f"`{label}`", text] for _, action, label, text in xdp_reasons()]),
    "flow tier": flow_tier,
    "layers": layers,
    "nftables": nftables,
    "services": service_keys,
}

PLACE = re.compile(r"(<!-- table: ([\w ]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)
DOCUMENTS = ("README.md", "userspace/README.md")


def renewed(text):
    return PLACE.sub(lambda place: place[1] + TABLES[place[2]]() + place[4], text)


def used(text):
    return [place[2] for place in PLACE.finditer(text)]


if __name__ == "__main__":
    for document in DOCUMENTS:
        path = SOURCE / document
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
