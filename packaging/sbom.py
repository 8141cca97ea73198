#!/usr/bin/env python3
"""sbom.py PROGRAM TARGET [CARGO'S FEATURE ARGUMENTS]: what PROGRAM is made of, as CycloneDX 1.5 on stdout.

It is what cargo itself resolves for the target and the features, with the sums of Cargo.lock: crates that are linked into the
program. Those that only run while it is built (build scripts, procedural macros) are not in it. No time, no random number: the
same sources give the same file. Rust's standard library and musl are named as what the compiler brings.
"""

import hashlib
import json
import re
import subprocess
import sys

program, target, features = sys.argv[1], sys.argv[2], sys.argv[3:]


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target, *features]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def sums():
    with open("Cargo.lock", encoding="utf-8") as file:
        entries = re.findall(r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"', file.read())
    return {(name, version): checksum for name, version, checksum in entries}


def linked(graph, packages, root):
    """The crates that are reached over normal dependencies, and what each needs."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    macro = lambda id: any("proc-macro" in found["kind"] for found in packages[id]["targets"])
    needs, waiting = {}, [root]
    while waiting:
        id = waiting.pop()
        if id in needs:
            continue
        normal = (dep["pkg"] for dep in nodes[id]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"]))
        needs[id] = sorted(dep for dep in normal if not macro(dep))
        waiting.extend(needs[id])
    return needs


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    part = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
        "scope": "required",
    }
    if package["license"]:
        # Cargo took a slash for OR once.
        part["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if checksum := checksums.get((package["name"], package["version"])):
        part["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        part["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return part


def main():
    found, checksums = metadata(), sums()
    packages = {package["id"]: package for package in found["packages"]}
    root = found["resolve"]["root"]
    needs = linked(found["resolve"], packages, root)
    with open(program, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    itself = component(packages[root], checksums)
    itself |= {"type": "application", "hashes": [{"alg": "SHA-256", "content": digest}]}
    itself["properties"] = [{"name": "target", "value": target}, {"name": "features", "value": " ".join(features) or "default"}]
    del itself["scope"]
    others = sorted((packages[id] for id in needs if id != root), key=reference)
    runtime = [{"type": "library", "bom-ref": name, "name": name, "scope": "required"} for name in ("std", "musl")]
    graph = {reference(packages[id]): sorted(reference(packages[dep]) for dep in deps) for id, deps in needs.items()}
    graph[reference(packages[root])] += ["musl", "std"]
    print(json.dumps({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": itself},
        "components": [component(package, checksums) for package in others] + runtime,
        "dependencies": [{"ref": ref, "dependsOn": deps} for ref, deps in sorted(graph.items())],
    }, indent=1))


main()
