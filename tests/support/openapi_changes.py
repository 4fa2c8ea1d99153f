"""What breaks clients between two OpenAPI documents."""

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def breaking(old, new):
    """One sentence for each change that a client of the old document may fail at."""
    found = []
    for path, operations in old["paths"].items():
        for method in _METHODS:
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
    before = {(it["in"], it["name"]) for it in old.get("parameters", [])}
    after = {(it["in"], it["name"]): it for it in new.get("parameters", [])}
    needed = {key for key, it in after.items() if it.get("required")}
    was_needed = {(it["in"], it["name"]) for it in old.get("parameters", []) if it.get("required")}
    for key in sorted(before - set(after)):
        yield f"the {key[0]} parameter {key[1]} is gone"
    for key in sorted(needed - was_needed):
        yield f"the {key[0]} parameter {key[1]} is required now"
    yield from _request(old.get("requestBody", {}), new.get("requestBody", {}), olds, news)
    for status, response in old["responses"].items():
        if not status.startswith("2"):
            continue
        if status not in new["responses"]:
            yield f"it no longer answers {status}"
            continue
        for media, content in response.get("content", {}).items():
            now = new["responses"][status].get("content", {}).get(media)
            if now is None:
                yield f"it no longer answers {media}"
            else:
                yield from _answer(content.get("schema", {}), now.get("schema", {}), olds, news, "the answer", set())


def _request(old, new, olds, news):
    if new.get("required") and not old.get("required"):
        yield "a body is required now"
    for media, content in old.get("content", {}).items():
        now = new.get("content", {}).get(media)
        if now is None:
            yield f"it no longer takes {media}"
        else:
            yield from _taken(content.get("schema", {}), now.get("schema", {}), olds, news, "the body", set())


def _answer(old, new, olds, news, place, seen):
    """Fields that are gone, and types that are others, in what is answered."""
    yield from _walk(old, new, olds, news, place, seen, _answer, needed=False)


def _taken(old, new, olds, news, place, seen):
    """Fields that are gone, required now or of another type, in what is sent."""
    yield from _walk(old, new, olds, news, place, seen, _taken, needed=True)


def _walk(old, new, olds, news, place, seen, further, *, needed):
    if (old.get("$ref"), new.get("$ref")) in seen:
        return
    seen = seen | ({(old["$ref"], new.get("$ref"))} if "$ref" in old else set())
    old, new = _resolved(old, olds), _resolved(new, news)
    if _types(old) and _types(new) and _types(old) != _types(new):
        yield f"{place} was {'|'.join(sorted(_types(old)))} and is {'|'.join(sorted(_types(new)))}"
        return
    gone = set(old.get("properties", {})) - set(new.get("properties", {}))
    yield from (f"{place}.{name} is gone" for name in sorted(gone))
    if needed:
        added = set(new.get("required", [])) - set(old.get("required", []))
        yield from (f"{place}.{name} is required now" for name in sorted(added))
        if "enum" in old:
            yield from (f"{place} no longer takes {it!r}" for it in old["enum"] if it not in new.get("enum", [it]))
    for name, schema in old.get("properties", {}).items():
        if name not in gone:
            yield from further(schema, new["properties"][name], olds, news, f"{place}.{name}", seen)
    if "items" in old and "items" in new:
        yield from further(old["items"], new["items"], olds, news, f"{place}[]", seen)
    for kind in ("anyOf", "oneOf"):
        for one, other in zip(old.get(kind, []), new.get(kind, []), strict=False):
            yield from further(one, other, olds, news, place, seen)


def _types(schema):
    """JSON types a schema allows; none where it does not say."""
    if isinstance(schema.get("type"), list):
        return set(schema["type"])
    if "type" in schema:
        return {schema["type"]}
    return {it.get("type", it.get("$ref")) for kind in ("anyOf", "oneOf") for it in schema.get(kind, [])}


def _resolved(schema, document):
    while "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema
