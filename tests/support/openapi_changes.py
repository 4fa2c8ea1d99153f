"""What breaks clients between two OpenAPI documents."""

from dataclasses import dataclass

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")


def breaking(old, new):
    """One sentence for each change that a client of the old document may fail at.

    A client may not find what it asks for (path, operation, parameter, media type, status, field), send too little
    (what is required now), send what is no longer taken (types, values of an enum, bounds), or read what it does not
    expect (types, and fields that may be missing now). What is added breaks nobody, nor do answers that are narrower
    than the old document allows; a value that is never answered again does, as somebody may wait for it.
    """
    found = []
    for path, operations in old["paths"].items():
        for method in METHODS:
            if method not in operations:
                continue
            name = f"{method.upper()} {path}"
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                found.append(f"{name} is gone")
            else:
                found += [f"{name}: {it}" for it in _operation(operations[method], now, old, new)]
    return found


def _operation(old, new, olds, news):
    yield from _parameters(old, new, olds, news)
    yield from _body(old.get("requestBody", {}), new.get("requestBody", {}), _Look(olds, news, sent=True))
    for status, response in old["responses"].items():
        if status not in new["responses"]:
            yield f"it no longer answers {status}"
            continue
        place = "the answer" if status.startswith("2") else f"the answer {status}"
        for media, content in response.get("content", {}).items():
            now = new["responses"][status].get("content", {}).get(media)
            if now is None:
                yield f"it no longer answers {media}" + ("" if place == "the answer" else f" with {status}")
            else:
                look = _Look(olds, news, sent=False)
                yield from look.changes(content.get("schema", {}), now.get("schema", {}), place)


def _parameters(old, new, olds, news):
    before = {(it["in"], it["name"]): it for it in old.get("parameters", [])}
    after = {(it["in"], it["name"]): it for it in new.get("parameters", [])}
    for key in sorted(before | after):
        name = f"the {key[0]} parameter {key[1]}"
        was, now = before.get(key), after.get(key)
        if now is None:
            yield f"{name} is gone"
            continue
        if now.get("required") and not (was or {}).get("required"):
            yield f"{name} is required now"
        if was is not None:
            yield from _Look(olds, news, sent=True).changes(was.get("schema", {}), now.get("schema", {}), name)


def _body(old, new, look):
    if new.get("required") and not old.get("required"):
        yield "a body is required now"
    for media, content in old.get("content", {}).items():
        now = new.get("content", {}).get(media)
        if now is None:
            yield f"it no longer takes {media}"
        else:
            yield from look.changes(content.get("schema", {}), now.get("schema", {}), "the body")


@dataclass(frozen=True)
class _Look:
    """Two documents, and whether clients send what is looked at or read it."""

    olds: dict
    news: dict
    sent: bool

    def changes(self, old, new, place, seen=frozenset()):
        """What breaks between two schemas; each pair that refers to itself is looked at once."""
        pair = (old.get("$ref"), new.get("$ref"))
        if pair in seen:
            return
        seen = seen | {pair} if pair != (None, None) else seen
        before, after = _kinds(old, self.olds), _kinds(new, self.news)
        if not before or not after:  # one of them says nothing, and allows everything
            if before or (after and self.sent):
                yield f"{place} was {_words(before)} and is {_words(after)}"
            return
        lost = _beyond(before, after) if self.sent else _beyond(after, before)
        if lost:
            yield f"{place} was {_words(before)} and is {_words(after)}"
            return
        given, taken = (before, after) if self.sent else (after, before)
        for kind in sorted(given):
            for one in given[kind]:
                yield from self._nearest(one, taken.get(kind) or taken["number"], place, seen)

    def _nearest(self, one, others, place, seen):
        """What breaks between one alternative and that of the other side which is most like it."""
        pairs = [(one, it) if self.sent else (it, one) for it in others]
        yield from min((list(self._alike(*pair, place, seen)) for pair in pairs), key=len)

    def _alike(self, old, new, place, seen):
        """What breaks between two schemas of the same type."""
        if "enum" in old or "enum" in new:
            yield from self._values(old.get("enum"), new.get("enum"), place)
        if self.sent:
            yield from _bounds(old, new, place)
        yield from self._fields(old, new, place, seen)
        for key, mark in (("items", "[]"), ("additionalProperties", ".*")):
            if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
                yield from self.changes(old[key], new[key], place + mark, seen)

    def _fields(self, old, new, place, seen):
        was, now = old.get("properties", {}), new.get("properties", {})
        yield from (f"{place}.{name} is gone" for name in sorted(was.keys() - now.keys()))
        needed, less = set(new.get("required", [])), set(old.get("required", []))
        if self.sent:
            yield from (f"{place}.{name} is required now" for name in sorted(needed - less))
        else:
            yield from (f"{place}.{name} may be missing now" for name in sorted((less - needed) & now.keys()))
        for name in (it for it in was if it in now):
            yield from self.changes(was[name], now[name], f"{place}.{name}", seen)

    def _values(self, old, new, place):
        word = "takes" if self.sent else "answers"
        if old is not None:
            yield from (f"{place} no longer {word} {it!r}" for it in old if it not in (new or [it]))
        elif self.sent:
            yield f"{place} takes nothing but {', '.join(map(repr, new))} now"


def _bounds(old, new, place):
    for key in UPPER + LOWER:
        if key not in new or new[key] == old.get(key):
            continue
        narrower = key not in old or (new[key] < old[key] if key in UPPER else new[key] > old[key])
        if narrower:
            yield f"{place} has {key} {new[key]} now"


def _kinds(schema, document):
    """The alternatives a schema allows, by their JSON type; none where it does not say."""
    schema = _resolved(schema, document)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            parts = [_kinds(it, document) for it in schema[key]]
            found = {kind: [it for part in parts for it in part.get(kind, [])] for part in parts for kind in part}
            return found if all(parts) else {}
    if "const" in schema:
        schema = schema | {"enum": [schema["const"]]}
    named = schema.get("type", [])
    return {kind: [schema] for kind in ([named] if isinstance(named, str) else named)}


def _beyond(some, others):
    """Types of the ones that the others do not take in."""
    return {it for it in some if it not in others and not (it == "integer" and "number" in others)}


def _words(kinds):
    return "|".join(sorted(kinds)) or "anything"


def _resolved(schema, document):
    while "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema
