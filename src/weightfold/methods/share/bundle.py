"""A saved SharedNet as a folder of domains: read one by one, added, removed and copied."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from weightfold.core.manifest import MANIFEST, read_manifest
from weightfold.core.part_file import (
    copy_part,
    file_of,
    read_part,
    shared_hash,
    write_part,
)
from weightfold.core.rebuild import rebuild
from weightfold.core.store import contents, levels, read_state, write_manifest
from weightfold.core.tensor_file import payload
from weightfold.files import BRIEFLY, foreign, locked, settled, stamp
from weightfold.methods import catalogue
from weightfold.methods.share.account import Sizes
from weightfold.methods.share.configuration import KIND, read_config, with_domains
from weightfold.methods.share.names import check_names
from weightfold.methods.share.plan import Plan

T = TypeVar("T")
PREPROCESSING = ("image_shape", "mean", "std", "value_range")


class Bundle:
    """What `wf.save` wrote of a SharedNet; only the manifest is read at first.

    A delta is what one domain owns: its filters, batch norm and classifier, in a file that names
    the shared file it was trained with. Files are checked against their hashes as they are read.
    Any number of threads and processes may read while one writes: each sees what was there before
    or what is there after. A second writer waits ten seconds for the first.

    Args:
        folder: Written by `wf.save`.

    Attributes:
        folder: Of the bundle.
        manifest: As read at first, by `load` and `sizes`, and before each change.

    Raises:
        FileNotFoundError: There is no manifest.
        ValueError: The manifest is damaged, of a later format, or of a net without domains.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._has_read = False
        self._read()

    def _read(self) -> None:
        """The manifest as it now is, so that a change keeps what was written meanwhile."""
        now = stamp(self.folder / MANIFEST)
        manifest = read_manifest(self.folder)
        self._config = read_config(manifest["levels"], self.folder)
        self.manifest = manifest
        self._now = now, manifest

    def _current(self) -> dict[str, Any]:
        """The manifest as it now is.

        Raises:
            ValueError: It names other shared tensors than those that were read before.
        """
        now = stamp(self.folder / MANIFEST)
        if now == self._now[0]:
            return self._now[1]
        manifest = read_manifest(self.folder)
        base, before = (m["tensors"]["sha256"] for m in (manifest, self.manifest))
        if self._has_read and base != before:
            raise ValueError(
                f"{self.folder} was saved again with other shared tensors, {base[:12]} instead of "
                f"{before[:12]}; open the bundle again"
            )
        self._now = now, manifest
        return manifest

    def _settled(self, read: Callable[[], T]) -> T:
        """What `read()` gives, of the manifest as it now is."""

        def current() -> T:
            if self._current() is not self.manifest:
                self._read()
            return read()

        return settled(self.folder / MANIFEST, current)

    @property
    def plan(self) -> Plan | None:
        """What the domains own and why; None if the net was made without a plan."""
        made = self._config.get("plan")
        try:
            return None if made is None else Plan.from_json(made)
        except ValueError as error:
            raise ValueError(f"{self.folder / MANIFEST}: {error}") from error

    @property
    def domains(self) -> list[str]:
        """Names, in the net's order."""
        return list(self.classes)

    @property
    def classes(self) -> dict[str, int]:
        """Domain -> number of classes."""
        return dict(self._config["classes"])

    @property
    def about(self) -> dict[str, dict[str, Any]]:
        """Domain -> what was saved with it: class names, preprocessing; may be empty."""
        return {name: dict(self._config["about"].get(name, {})) for name in self.domains}

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Domain -> names of its classes in order; empty if none were given."""
        return {name: list(about.get("class_names", [])) for name, about in self.about.items()}

    @property
    def preprocessing(self) -> dict[str, dict[str, Any]]:
        """Domain -> those of "image_shape", "mean", "std", "value_range" that it has."""
        return {
            name: {key: about[key] for key in PREPROCESSING if key in about}
            for name, about in self.about.items()
        }

    def sizes(self, domains: Sequence[str] | None = None) -> Sizes:
        """Bytes of the tensors in each file, from the files' headers; `Plan.account` foretells it.

        Args:
            domains: Those asked for; None: all.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is no safetensors file.
        """
        names = self.domains if domains is None else self._known(domains)
        return self._settled(
            lambda: Sizes(self._payload(None), {n: self._payload(n) for n in names})
        )

    def shared(self) -> Mapping[str, Tensor]:
        """The tensors that exist once, by their names in the net's state_dict; as `delta`.

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: The file is damaged or was changed.
        """
        return self._tensors(None)

    def delta(self, name: str) -> Mapping[str, Tensor]:
        """What a domain owns, by the names in the net's state_dict; read into memory at each call.

        Whatever then happens to the file, it stays as it is. A tensor is made when it is taken, a
        view of one buffer. Tied ones are under their first name.

        Raises:
            KeyError: There is no such domain; the message lists those there are.
            FileNotFoundError: The file is missing.
            ValueError: The file is damaged, was changed, or belongs to other shared tensors.
        """
        self._known([name])
        return self._tensors(name)

    def load(self, model: nn.Module, domains: Sequence[str] | None = None) -> nn.Module:
        """A SharedNet of some domains; the others' files are not touched.

        Args:
            model: A plain module of the architecture that was shared; left unchanged.
            domains: Those wanted, in the net's order to be; None: all.

        Raises:
            KeyError: No such domain, or `model` is of another architecture.
            FileNotFoundError: A file is missing.
            ValueError: A file is damaged; `domains` is empty or names one twice; or charts lie
                above the sharing, which need all domains.
        """
        return self._settled(lambda: self._load(model, domains))

    def _load(self, model: nn.Module, domains: Sequence[str] | None) -> nn.Module:
        names = self.domains if domains is None else self._known(domains)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"domains={names}; name at least one, each once")
        chosen = self.manifest["levels"]
        if names != self.domains:
            self._check_top("load all its domains")
            chosen = with_domains(chosen, {name: self.classes[name] for name in names}, self.about)
        parts = [name for name in names if name in self.manifest["parts"]]
        state = read_state(self.folder, self.manifest, parts)
        catalogue()  # of the sharing, and of charts above it
        return rebuild(self.folder, model, chosen, state)

    def add(self, net: nn.Module, name: str) -> None:
        """Add a domain of `net`; the other domains' files stay as they are.

        Args:
            net: A SharedNet with the bundle's shared tensors, bitwise, as `load` gives it and
                `add_domain` and training of that domain alone leave it; other domains do not count.
            name: One of its domains, new to the bundle.

        Raises:
            KeyError: `net` has no such domain.
            ValueError: The bundle has it; or `net` has other shared tensors, or owns other layers.
            FileExistsError: Another process writes into the bundle for more than ten seconds.
        """
        with locked(self.folder, BRIEFLY):
            self._add(net, name)

    def _add(self, net: nn.Module, name: str) -> None:
        self._read()
        config = read_config(theirs := levels(net), "net")
        if name not in config["classes"]:
            raise KeyError(f"name={name!r}; the net's domains are {', '.join(config['classes'])}")
        self._check_new(name, theirs, "the net")
        shared, groups, aliases = contents(net)
        base = self.manifest["tensors"]["sha256"]
        if (given := shared_hash(shared)) != base:
            raise ValueError(
                f"the net's shared tensors {given[:12]} are not those of {self.folder}, "
                f"{base[:12]}; train only {name!r} for this, or wf.save the whole net"
            )
        parts = dict(self.manifest["parts"])
        if name in groups:
            parts[name] = write_part(self.folder, name, groups[name], base)
        self._write(
            parts, {**self.classes, name: config["classes"][name]}, config["about"], aliases
        )

    def remove(self, name: str) -> None:
        """Remove a domain: first from the manifest, then its file.

        Raises:
            KeyError: There is no such domain.
            ValueError: It is the only one, or charts lie above the sharing.
            FileExistsError: As for `add`.
        """
        with locked(self.folder, BRIEFLY):
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._read()
        self._known([name])
        self._check_top("remove the domain of the loaded net and save that")
        if len(self.domains) == 1:
            raise ValueError(f"name={name!r} is the only domain of {self.folder}")
        parts = {part: entry for part, entry in self.manifest["parts"].items() if part != name}
        self._write(parts, {n: c for n, c in self.classes.items() if n != name})

    def export_delta(self, name: str, folder: str | Path) -> None:
        """Write one domain alone, without the shared tensors, for `import_delta` elsewhere.

        Args:
            name: Of the domain.
            folder: New or empty; gets the delta, byte for byte, and a manifest.

        Raises:
            KeyError: There is no such domain.
            FileExistsError: The folder holds files.
            ValueError: The file is damaged, or charts lie above the sharing.
        """
        self._known([name])
        self._check_top("send the whole bundle")
        folder = Path(folder)
        with locked(folder, BRIEFLY):
            if foreign(folder):
                raise FileExistsError(
                    f"folder={str(folder)!r} holds files; give a new or empty one"
                )
            parts = self._settled(lambda: self._copy_delta(name, folder))
            alone = with_domains(self.manifest["levels"], {name: self.classes[name]}, self.about)
            write_manifest(folder, self.manifest["tensors"], parts, alone)

    def import_delta(self, source: str | Path, name: str) -> None:
        """Take over a domain from another bundle with the same shared tensors.

        Args:
            source: A bundle's folder, or one that `export_delta` wrote.
            name: Of the domain.

        Raises:
            FileNotFoundError: `source` is no bundle, or its delta is missing.
            KeyError: `source` has no such domain.
            ValueError: The bundle has it; the delta is damaged, or belongs to other shared tensors
                or another plan.
            FileExistsError: Another file has the name that the delta would get.
        """
        with locked(self.folder, BRIEFLY):
            other = Bundle(source)
            other._settled(lambda: self._import(other, name))

    def _import(self, other: "Bundle", name: str) -> None:
        self._read()
        other._known([name])
        self._check_new(name, other.manifest["levels"], other.folder)
        base, theirs = (m["tensors"]["sha256"] for m in (self.manifest, other.manifest))
        if base != theirs:
            raise ValueError(
                f"{name!r} of {other.folder} was saved with the shared tensors {theirs[:12]}, but "
                f"those of {self.folder} are {base[:12]}; only bundles that share them exchange "
                "domains"
            )
        self._check_names(name, other)
        parts = {**self.manifest["parts"], **other._copy_delta(name, self.folder)}
        classes = {**self.classes, name: other.classes[name]}
        aliases = other.manifest["tensors"]["aliases"]
        self._write(parts, classes, {name: other.about[name]}, aliases)

    def _copy_delta(self, name: str, folder: Path) -> dict[str, dict[str, str]]:
        """Copy a delta, checked; its entry for a manifest (none, if the domain owns nothing)."""
        if name not in self.manifest["parts"]:
            return {}
        return {name: copy_part(self.folder, self.manifest, name, folder)}

    def _check_names(self, name: str, other: "Bundle") -> None:
        """Raise unless a delta of another bundle holds what those here hold."""
        mine = self.domains[0]
        ours = {key.replace(f".domains.{mine}.", "..", 1) for key in self._tensors(mine)}
        theirs = {key.replace(f".domains.{name}.", "..", 1) for key in other._tensors(name)}
        if ours != theirs:
            differ = sorted(ours ^ theirs)
            raise ValueError(
                f"{other.folder / MANIFEST}: the delta of {name!r} and that of {mine!r} in "
                f"{self.folder} differ in {len(differ)} tensors, e.g. {differ[0]!r}"
            )

    def _write(
        self,
        parts: dict[str, Any],
        classes: dict[str, int],
        about: Mapping[str, Any] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Put other domains in force; `about` and `aliases` come on top of those there are."""
        tensors = dict(self.manifest["tensors"])
        tensors["aliases"] = {**(aliases or {}), **tensors["aliases"]}
        about = {**(about or {}), **self._config["about"]}
        changed = with_domains(self.manifest["levels"], classes, about)
        write_manifest(self.folder, tensors, parts, changed)
        self._read()

    def _tensors(self, name: str | None) -> Mapping[str, Tensor]:
        def read() -> Mapping[str, Tensor]:
            manifest = self._current()
            if name is not None and manifest is not self.manifest:
                classes = read_config(manifest["levels"], self.folder)["classes"]
                if classes.get(name) != self.classes[name]:
                    raise ValueError(
                        f"domain {name!r} of {self.folder} was removed or has other classes now; "
                        "open the bundle again"
                    )
            if name is not None and name not in manifest["parts"]:
                return {}
            part = read_part(self.folder, manifest, name)
            self._has_read = True
            return part

        return settled(self.folder / MANIFEST, read)

    def _payload(self, name: str | None) -> int:
        if name is not None and name not in self.manifest["parts"]:
            return 0
        return payload(file_of(self.folder, self.manifest, name))

    def _known(self, names: Sequence[str]) -> list[str]:
        for name in names:
            if name not in self.classes:
                raise KeyError(
                    f"domain={name!r}; the domains of {self.folder} are {', '.join(self.domains)}"
                )
        return list(names)

    def _check_top(self, advice: str) -> None:
        if not any(chart["kind"] == KIND for chart in self.manifest["levels"][-1]):
            raise ValueError(f"{self.folder} has charts above the sharing of domains; {advice}")

    def _check_new(self, name: str, theirs: list[list[dict[str, Any]]], source: object) -> None:
        """Raise if the domain is there, or comes from a net that shares other things."""
        self._check_top("add the domain to the loaded net and save that")
        if name in self.classes:
            raise ValueError(f"domain {name!r} is in {self.folder}; remove it first")
        check_names([name])
        if with_domains(theirs, {}, {}) != with_domains(self.manifest["levels"], {}, {}):
            raise ValueError(
                f"domain {name!r} of {source} comes from a net of another plan than {self.folder}: "
                "its domains own other filters, batch norms or another classifier"
            )
