"""Random JSON schemas of all that structured output holds answers to, and other forms with their recognisers."""
import random
import re

WORDS = ["name", "größe", "数量", "x-y", "a b", "tags", "left", "right", "é", "emoji 😀", "quote\"d", "back\\slash", "id", "kind"]
PATTERNS = ["^[a-z]{2,5}$", "[0-9]{3}-[0-9]{4}", "^(yes|no|maybe)$", "^[A-Z][a-z]*( [A-Z][a-z]*){0,2}$", "^\\d{1,3}(\\.\\d{1,3}){3}$",
            "^[^a-z]{1,4}$", "^\\w+@\\w+$", "^.{2,6}$", "^[äöü]{1,3}$", "^\\S{1,5}$"]


class Schemas:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def one(self):
        """A whole schema; one in six recurses."""
        if self.random.random() < 1 / 6:
            return self.recursive()
        return self.random.choice([self.object, self.object, self.object, self.array, self.union, self.any])(3)

    def recursive(self):
        node = {"type": "object", "properties": {"value": self.any(0), "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["value", "next"], "additionalProperties": False}
        if self.random.random() < 0.5:
            node["properties"]["next"] = {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": self.random.randint(1, 2)}
        return {"$defs": {"node": node}, "$ref": "#/$defs/node"}

    def any(self, depth):
        leaves = [self.string, self.integer, self.number, self.enum, self.const, self.plain]
        if depth <= 0:
            return self.random.choice(leaves)(depth)
        return self.random.choice([*leaves, self.object, self.array, self.union])(depth)

    def plain(self, depth):
        return {"type": self.random.choice(["boolean", "null"])}

    def string(self, depth):
        kind = self.random.random()
        if kind < 0.4:
            return {"type": "string", "pattern": self.random.choice(PATTERNS)}
        if kind < 0.6:
            return {"type": "string", "format": self.random.choice(["date", "time", "date-time", "uuid", "ipv4", "email"])}
        least = self.random.randint(0, 4)
        return {"type": "string", "minLength": least, "maxLength": least + self.random.randint(0, 8)}

    def integer(self, depth):
        schema = {"type": "integer"}
        low = self.random.choice([-10**9, -1234, -1, 0, 1, 7, 99, 10**12])
        if self.random.random() < 0.8:
            schema[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.8:
            schema[self.random.choice(["maximum", "exclusiveMaximum"])] = low + self.random.choice([2, 9, 1000, 123456])
        return schema

    def number(self, depth):
        schema = {"type": "number"}
        low = self.random.choice([-273.15, -1, -0.5, 0, 0.001, 3.25, 1e6])
        if self.random.random() < 0.8:
            schema[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.8:
            schema[self.random.choice(["maximum", "exclusiveMaximum"])] = low + self.random.choice([0.125, 1, 99.5])
        return schema

    def enum(self, depth):
        values = self.random.sample(["rot", "grün", "a\"b", "\\", "\n", "x" * 12, 1, -2.5, True, None, ["a", 1], {"b": 2}], self.random.randint(1, 4))
        schema = {"enum": values}
        if self.random.random() < 0.3 and all(isinstance(v, str) for v in values):
            schema["type"] = "string"
        return schema

    def const(self, depth):
        return {"const": self.random.choice(["v1", "Ünïcode ✓", 42, False, None])}

    def array(self, depth):
        schema = {"type": "array"}
        if self.random.random() < 0.25:
            schema["prefixItems"] = [self.any(depth - 1) for _ in range(self.random.randint(1, 3))]
            schema["minItems"] = len(schema["prefixItems"])
            schema["items"] = False
            return schema
        schema["items"] = self.any(depth - 1)
        schema["minItems"] = self.random.randint(0, 2)
        schema["maxItems"] = schema["minItems"] + self.random.randint(0, 2)
        return schema

    def object(self, depth):
        names = self.random.sample(WORDS, self.random.randint(1, 4))
        schema = {"type": "object", "properties": {name: self.any(depth - 1) for name in names}}
        schema["required"] = [name for name in names if self.random.random() < 0.6]
        more = self.random.random()
        if more < 0.5:
            schema["additionalProperties"] = False
        elif more < 0.6:
            schema["additionalProperties"] = self.any(0)
        if self.random.random() < 0.1:
            schema["maxProperties"] = len(names)
        return schema

    def union(self, depth):
        return {"anyOf": [self.any(depth - 1) for _ in range(self.random.randint(2, 3))]}


REGEXES = ["(foo|bar){2,3}", "[0-9]{1,4}(\\.[0-9]{2})?", "[^x]{3}", "(a|b)*c", "\\d+ apples?", "[α-ω]{2,4}", "v[0-9]+\\.[0-9]+(-rc[1-9])?",
           "(Mon|Tue|Wed), [0-3][0-9] [A-Z][a-z]{2}", ".{1,3}!", "\"[a-z]*\""]


def is_choice(choices):
    return lambda text: text in choices


def is_regex(regex):
    return lambda text: re.fullmatch(regex, text, re.DOTALL) is not None


def is_sum(text):
    """root ::= sum; sum ::= term (" + " term)*; term ::= [0-9]{1,3} | "(" sum ")"."""
    def sum_at(at):
        for at in term_at(at):
            yield at
            if text.startswith(" + ", at):
                yield from sum_at(at + 3)

    def term_at(at):
        digits = re.match("[0-9]{1,3}", text[at:])
        if digits:
            yield from range(at + 1, at + digits.end() + 1)
        elif text.startswith("(", at):
            yield from (end + 1 for end in sum_at(at + 1) if text.startswith(")", end))

    return len(text) in sum_at(0)


def is_same_count(text):
    """root ::= "a" root "b" | "ab"."""
    half = len(text) // 2
    return half > 0 and text == "a" * half + "b" * half


OTHERS = [({"choice": ["yes", "no", "größer\n", "\"quoted\" \\ text", "yes and no"]}, is_choice(["yes", "no", "größer\n", "\"quoted\" \\ text", "yes and no"])),
          ({"grammar": 'root ::= sum\nsum ::= term (" + " term)*\nterm ::= [0-9]{1,3} | "(" sum ")"\n'}, is_sum),
          ({"grammar": 'root ::= "a" root "b" | "ab"'}, is_same_count),
          *(({"regex": regex}, is_regex(regex)) for regex in REGEXES)]
