"""Bodies to sign: JSON of many shapes and spellings, and forms. The same on every run."""

import json
import random

WORDS = ["tide", "harbour", "Gezeiten für Ärzte", "潮の満ち引き", "🌊🚢", "a+b=c&d%20e", " ", "é", "e\u0301"]
WORDS += ['quote " and \\ slash', "</script>", "\u2028line"]


def value(chance, depth=0):
    """A JSON value, at most four levels deep."""
    kind = chance.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.choice([0, -1, 2**53 + 1, 10**20, chance.randrange(10**6)])
    if kind == 2:
        return chance.choice([0.1, -2.5e-7, 1e21, chance.random()])
    if kind < 6:
        return " ".join(chance.choices(WORDS, k=chance.randrange(1, 4)))
    if kind == 6:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {f"{chance.choice(WORDS)}{n}": value(chance, depth + 1) for n in range(chance.randrange(4))}


def spelled(document, number):
    """The bytes of a document: compact, spaced, indented, or in ASCII alone."""
    ways = [{"separators": (",", ":"), "ensure_ascii": False}, {"ensure_ascii": False}, {"indent": 2, "ensure_ascii": False}, {}]
    return json.dumps(document, **ways[number % len(ways)]).encode()


def documents(count, name, base):
    """`count` pairs of a document and its bytes. `base(number)` gives fields of its own; one is of 200,000 bytes and more."""
    chance = random.Random(name)
    made = []
    for number in range(count):
        document = {**base(number), "data": {"object": value(chance)}}
        if number == 1:
            document["data"]["large"] = "high water " * 20_000
        made.append((document, spelled(document, number)))
    return made


def fields(count, name):
    """`count` lists of fields of a form, some with repeated names and some with empty values."""
    chance = random.Random(name)
    names = ["From", "To", "Body", "MessageSid", "body", "a b", "Ärzte", "x[]", "_", "A0", "A-1"]
    made = []
    for number in range(count):
        chosen = [(chance.choice(names), chance.choice(["", *WORDS, "+15550100"])) for _ in range(chance.randrange(1, 12))]
        made.append([("Number", str(number)), *chosen])
    return made
