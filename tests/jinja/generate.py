"""Random templates over random variables: every construct that chat templates use, most of them of types that fit."""
import json
import random

STRINGS = ["", "a", "Hello World", " x ", "a,b,,c", "<think>\nhmm\n</think>\n\nso", "\u00e9\u00df\u4e2d\u6587 \U0001f642", "{{ x }}", "it's \"q\"\\", "line\nline2\r\n\tz",
           "foo bar baz", "12", "-3.5", "ABC def", "a<b>&c", "\u0130\u03a3\u03c2", "tool_call", "0", "\u00a0nb\u2003", "x" * 30]
NUMBERS = [0, 1, -1, 2, 3, 7, 10, 100, -17, 2**31, 2**63, 10**25, 0.0, 1.0, -0.5, 2.5, 1e16, 1e-5, 3.14159, 123456.789, 1e100]
KEYS = ["role", "content", "name", "items", "a", "b", "type", "x y", "tool_calls", "keys"]


class Generator:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.names = []       # variables that the template has set, by their type
        self.loops = 0
        self.macros = []
        self.depth = 0

    def pick(self, *choices):
        return self.rng.choice(choices)

    # ---- data
    def value(self, depth=0):
        r = self.rng.random()
        if r < 0.35 or depth > 3:
            return self.rng.choice(STRINGS)
        if r < 0.55:
            return self.rng.choice(NUMBERS)
        if r < 0.65:
            return self.pick(True, False, None)
        if r < 0.82:
            return [self.value(depth + 1) for _ in range(self.rng.randrange(4))]
        return {self.rng.choice(KEYS): self.value(depth + 1) for _ in range(self.rng.randrange(4))}

    def message(self):
        message = {"role": self.pick("user", "assistant", "system", "tool"), "content": self.rng.choice(STRINGS)}
        if self.rng.random() < 0.3:
            message["tool_calls"] = [{"name": self.rng.choice(STRINGS), "arguments": {k: self.value(2) for k in self.rng.sample(KEYS, 2)}}]
        if self.rng.random() < 0.1:
            message["content"] = self.value()
        return message

    def variables(self):
        return {"messages": [self.message() for _ in range(self.rng.randrange(5))], "s": self.rng.choice(STRINGS), "t": self.rng.choice(STRINGS),
                "n": self.rng.choice(NUMBERS[:10]), "m": self.rng.choice([1, 2, 3, 5]), "f": float(self.rng.choice(NUMBERS)),
                "words": [self.rng.choice(STRINGS) for _ in range(self.rng.randrange(5))], "nums": [self.rng.choice(NUMBERS) for _ in range(self.rng.randrange(5))],
                "d": {k: self.value(1) for k in self.rng.sample(KEYS, self.rng.randrange(5))}, "any": self.value(), "flag": self.pick(True, False), "nothing": None}

    # ---- expressions; each kind gives one of its type, mostly
    def literal(self, text):
        return json.dumps(text, ensure_ascii=self.pick(True, False)) if "\U0001f642" not in text else json.dumps(text, ensure_ascii=False)

    def deep(self):
        return self.depth > 3

    def nested(self, make):
        self.depth += 1
        out = make()
        self.depth -= 1
        return out

    def any(self):
        return self.nested(lambda: self.pick(self.text, self.number, self.list, self.dict, self.boolean, self.text)())

    def text(self):
        r = self.rng.random()
        if r < 0.03:
            return self.any() if not self.deep() else "undefined_name"
        if self.deep() or r < 0.3:
            names = [n for n, kind in self.names if kind == "s"]
            return self.pick("s", "t", self.literal(self.rng.choice(STRINGS)), self.literal(self.rng.choice(STRINGS)), *names,
                             *(["m0.content", "m0['role']", "loop.index ~ ''"] if self.loops else []))
        return self.nested(lambda: self.pick(
            lambda: f"({self.text()} {self.pick('+', '~')} {self.text()})", lambda: f"({self.any()} ~ {self.any()})",
            lambda: f"{self.text()}.{self.pick('upper', 'lower', 'strip', 'lstrip', 'rstrip', 'title', 'capitalize', 'swapcase', 'casefold')}()",
            lambda: f"{self.text()} | {self.pick('upper', 'lower', 'trim', 'title', 'capitalize', 'string', 'e', 'length | string', 'reverse', 'first', 'last', 'indent', 'urlencode', 'wordcount', 'safe', 'center(12)')}",
            lambda: f"""{self.any()} | tojson{self.pick('', '', '(indent=2)', '(ensure_ascii=true)', '(indent=4, sort_keys=false)', '(separators=(",", ":"))')}""",
            lambda: f"{self.text()}.replace({self.literal(self.pick('a', 'l', ' ', 'x', ''))}, {self.text()})",
            lambda: f"{self.text()} | replace({self.literal(self.pick('a', 'l', ' ', 'x'))}, {self.any()}{self.pick('', ', 1')})",
            lambda: f"{self.text()}.split({self.pick('', repr(','), repr(' '), repr('</think>'))})[{self.pick('0', '-1', '1', '5')}]",
            lambda: f"{self.text()}[{self.pick('1:', ':-1', '::-1', '2:5', '-3:', ':3', '::2')}]", lambda: f"{self.text()}[{self.pick('0', '-1', '2', '50')}]",
            lambda: f"""{self.list()} | join{self.pick('', '(", ")', '(s)')}""", lambda: f"{self.literal(', ')}.join({self.list()} | map('string'))",
            lambda: f"({self.text()} if {self.boolean()} else {self.text()})", lambda: f"({self.text()} if {self.boolean()})",
            lambda: f"{self.any()} | default({self.text()}{self.pick('', ', true')})", lambda: f"{self.any()} | string",
            lambda: f"'%s|%5d|%-6s|%.2f|%x' | format({self.any()}, {self.number()}, {self.text()}, {self.number()}, m)",
            lambda: f"'%(a)s-%(b)r' % dict(a={self.any()}, b={self.any()})", lambda: f"'{{}}-{{:>8}}-{{a:.3f}}'.format({self.any()}, {self.text()}, a={self.number()})",
            lambda: f"{self.text()}.{self.pick('ljust', 'rjust', 'center', 'zfill')}({self.pick('3', '10', 'm')})",
            lambda: f"{self.text()}.{self.pick('removeprefix', 'removesuffix', 'strip', 'lstrip', 'rstrip')}({self.literal(self.pick('a', 'x', 'Hello', chr(10)))})",
            lambda: f"""{self.text()} | truncate({self.pick('5', '10, true', '8, false, "..", 0')})""", lambda: f"""{self.text()} | indent({self.pick('2', '2, true', '">", true, true')})""",
            lambda: f"{self.dict()}.get({self.key()}, {self.text()})", lambda: f"{self.any()}", lambda: f"{self.text()} * {self.pick('0', '2', 'm')}",
            *([lambda: f"{self.rng.choice(self.macros)}({self.arguments()})"] * 2 if self.macros else []))())

    def arguments(self):
        return self.pick("", self.any(), f"{self.any()}, {self.any()}", f"b={self.any()}", f"{self.any()}, c=1", f"*{self.list()}", f"**{{'b': {self.any()}}}")

    def key(self):
        return self.literal(self.rng.choice(KEYS))

    def number(self):
        r = self.rng.random()
        if self.deep() or r < 0.4:
            return self.pick("n", "m", "f", "0", "1", "2", "-3", "7", "2.5", "1e3", "0x1f", *(["loop.index", "loop.index0", "loop.revindex", "loop.length", "loop.depth"] if self.loops else []))
        return self.nested(lambda: self.pick(
            lambda: f"({self.number()} {self.pick('+', '-', '*', '/', '//', '%')} {self.number()})", lambda: f"{self.number()} ** {self.pick('0', '2', '-1', '3')}",
            lambda: f"-{self.number()}", lambda: f"{self.list()} | {self.pick('length', 'count', 'first', 'last', 'max', 'min', 'sum')}", lambda: f"nums | {self.pick('sum', 'max', 'min', 'first')}",
            lambda: f"{self.text()} | {self.pick('length', 'int', 'float', 'int(5)', 'float(0.5)', 'int(base=16)')}", lambda: f"""{self.number()} | {self.pick('abs', 'int', 'float', 'round', 'round(1)', 'round(2, "floor")', 'round(1, "ceil")')}""",
            lambda: f"{self.text()}.{self.pick('find', 'count', 'rfind', 'index')}({self.literal(self.pick('a', 'l', 'x', ' '))})", lambda: f"{self.text()} | wordcount")())

    def boolean(self):
        r = self.rng.random()
        if self.deep() or r < 0.25:
            return self.pick("true", "false", "flag", "nothing", "s", "messages", "d", "undefined_name", *(["loop.first", "loop.last"] if self.loops else []))
        return self.nested(lambda: self.pick(
            lambda: f"({self.boolean()} {self.pick('and', 'or')} {self.boolean()})", lambda: f"not {self.boolean()}",
            lambda: f"({self.number()} {self.pick('<', '>', '<=', '>=', '==', '!=')} {self.number()})", lambda: f"({self.text()} {self.pick('==', '!=', '<', '>')} {self.text()})",
            lambda: f"({self.any()} {self.pick('==', '!=')} {self.any()})", lambda: f"({self.text()} {self.pick('in', 'not in')} {self.pick(self.text, self.list, self.dict)()})",
            lambda: f"({self.any()} in {self.list()})", lambda: f"(1 < {self.number()} <= 10)",
            lambda: f"({self.any()} is {self.pick('', 'not ')}{self.pick('defined', 'undefined', 'none', 'string', 'mapping', 'sequence', 'iterable', 'number', 'boolean', 'integer', 'float', 'true', 'false', 'callable')})",
            lambda: f"({self.number()} is {self.pick('odd', 'even', 'divisibleby 3', 'divisibleby(2)')})", lambda: f"({self.any()} is {self.pick('eq', 'equalto', 'ne', 'sameas', 'in')}({self.any()}))",
            lambda: f"""{self.text()}.{self.pick('startswith', 'endswith')}({self.pick(self.literal('a'), self.literal('Hel'), self.text(), '("a", "<")')})""",
            lambda: f"{self.text()}.{self.pick('isdigit', 'isalpha', 'isupper', 'islower', 'isspace', 'isalnum', 'istitle')}()", lambda: f"({self.text()} is {self.pick('upper', 'lower')})")())

    def list(self):
        r = self.rng.random()
        if self.deep() or r < 0.3:
            return self.pick("words", "nums", "messages", "[]", "[1, 'a', none]", "(1, 2)", *[n for n, kind in self.names if kind == "l"])
        return self.nested(lambda: self.pick(
            lambda: f"[{self.any()}, {self.any()}]", lambda: f"({self.any()}, {self.any()})", lambda: f"({self.list()} + {self.list()})",
            lambda: f"{self.list()}[{self.pick('1:', ':-1', '::-1', '-2:', '1:3')}]", lambda: f"""{self.text()}.{self.pick('split()', 'splitlines()', 'split(",")', 'rsplit(" ", 1)', 'partition("a")', 'split(none, 1)')}""",
            lambda: f"""{self.list()} | {self.pick('list', 'reverse | list', 'sort', 'unique | list', 'map("string") | list', 'select | list', 'reject("none") | list', 'select("string") | list', 'batch(2) | list', 'slice(2) | list', 'map("upper") | list')}""",
            lambda: f"""words | {self.pick('sort', 'sort(reverse=true)', 'sort(case_sensitive=true)', 'unique | list', 'map("trim") | list', 'select("in", s) | list', 'map("length") | list', 'map("replace", "a", "b") | list')}""",
            lambda: f"""nums | {self.pick('sort', 'select("gt", 1) | list', 'reject("odd") | list', 'map("string") | list')}""",
            lambda: f"""messages | {self.pick('map(attribute="role") | list', 'selectattr("role", "equalto", "user") | list', 'rejectattr("tool_calls") | list', 'selectattr("tool_calls", "defined") | list', 'map(attribute="tool_calls.0.name", default="-") | list', 'sort(attribute="role")', 'groupby("role") | list', 'map(attribute="content") | select("string") | list')}""",
            lambda: f"{self.dict()}.{self.pick('items()', 'keys()', 'values()')} | list", lambda: f"""{self.dict()} | {self.pick('dictsort', 'list', 'items | list', 'dictsort(by="value")', 'dictsort(true)', 'dictsort(reverse=true)')}""",
            lambda: f"range({self.pick('3', 'm', '1, 6', '5, 0, -2')}) | list")())

    def dict(self):
        if self.deep() or self.rng.random() < 0.4:
            return self.pick("d", "{}", "{'a': 1, 'b': s}", "dict(a=1)", *(["m0"] if self.loops else []))
        return self.nested(lambda: self.pick(lambda: f"{{{self.key()}: {self.any()}, {self.key()}: {self.any()}}}", lambda: f"dict({self.dict()}, z={self.any()})",
                                             lambda: f"{{{self.pick('1', '1.0', 'true', 'none', 's')}: {self.any()}}}", lambda: "d")())

    # ---- statements
    def tag(self, inside):
        return f"{{%{self.pick('', '', '-', '-', '+')} {inside} {self.pick('', '', '-', '-')}%}}"

    def data(self):
        return self.pick("", "\n", "text", "  \n  ", "<|im_start|>", " a b\n", "\t", "x\n\n")

    def body(self, level):
        return "".join(self.data() + self.statement(level) for _ in range(self.rng.randrange(1, 4))) + self.data()

    def scoped(self, level):
        names, macros = list(self.names), list(self.macros)
        out = self.body(level)
        self.names, self.macros = names, macros
        return out

    def statement(self, level):
        r = self.rng.random()
        if r < 0.4 or level > 3:
            return f"{{{{{self.pick('', '-')} {self.pick(self.text, self.text, self.any, self.number, self.list)()} {self.pick('', '-')}}}}}"
        return self.pick(self.if_, self.if_, self.for_, self.for_, self.set_, self.set_, self.namespace_, self.block_, self.macro_, self.call_, self.misc_)(level + 1)

    def if_(self, level):
        out = self.tag(f"if {self.boolean()}") + self.scoped(level)
        while self.rng.random() < 0.3:
            out += self.tag(f"elif {self.boolean()}") + self.scoped(level)
        if self.rng.random() < 0.5:
            out += self.tag("else") + self.scoped(level)
        return out + self.tag("endif")

    def for_(self, level):
        head, kind = self.pick(("m0 in messages", "m"), (f"x in {self.list()}", "a"), (f"k, v in {self.dict()}.items()", "kv"), (f"k, v in {self.dict()} | dictsort", "kv"),
                               (f"x in {self.text()}", "s"), (f"""m0 in messages if {self.pick('m0.role == "user"', 'm0.content', 'loop_not_here is undefined')}""", "m"))
        names, self.loops = list(self.names), self.loops + (kind == "m")
        if kind == "s":
            self.names.append(("x", "s"))
        if kind == "kv":
            self.names.append(("k", "s"))
        extra = self.pick("", "", self.tag(f"if {self.pick('loop.index > 2', 'loop.last', 'x is string')}") + self.tag(self.pick("break", "continue")) + self.tag("endif"),
                          "{{ loop.cycle('o', 'e') }}", "{{ loop.changed(loop.index // 2) }}", "{{ loop.previtem }}{{ loop.nextitem is defined }}")
        out = self.tag("for " + head) + extra + self.body(level)
        self.names, self.loops = names, self.loops - (kind == "m")
        if self.rng.random() < 0.2:
            out += self.tag("else") + self.scoped(level)
        return out + self.tag("endfor")

    def set_(self, level):
        name, kind = self.pick(("v1", "s"), ("v2", "s"), ("v3", "l"), ("s", "s"))
        value = self.text() if kind == "s" else self.list()
        if self.rng.random() < 0.2:
            out = self.tag(f"set {name}{self.pick('', ' | upper', ' | trim')}") + self.scoped(level) + self.tag("endset")
            kind = "s"
        else:
            out = self.tag(f"set {self.pick(name, name, name + ', v9')} = {value}") if kind == "l" else self.tag(f"set {name} = {value}")
        self.names.append((name, kind))
        return out

    def namespace_(self, level):
        return self.tag(f"set ns = namespace(found={self.any()}, text='')") + self.tag(f"for x in {self.list()}") + self.tag(f"set ns.found = {self.any()}") + \
            self.tag(f"set ns.text = ns.text ~ {self.text()}") + self.tag("endfor") + "{{ ns.found }}{{ ns.text }}"

    def block_(self, level):
        return self.pick(lambda: self.tag(f"with w = {self.any()}, v1 = {self.text()}") + self.scoped(level) + "{{ w }}" + self.tag("endwith"),
                         lambda: self.tag(f"""filter {self.pick('upper', 'trim', 'replace("a", "b")', 'indent(2) | title')}""") + self.scoped(level) + self.tag("endfilter"),
                         lambda: self.tag("generation") + self.scoped(level) + self.tag("endgeneration"),
                         lambda: "{% raw %}{{ not }} {% this %}{% endraw %}", lambda: self.pick("{# note #}", "{#- note -#}\n", "  {# c #}\n"))()

    def macro_(self, level):
        name = self.pick("f1", "f2", "f3")
        names, loops, self.loops = list(self.names), self.loops, 0
        self.names += [("a", "s")]
        out = self.tag(f"macro {name}(a, b={self.any()})") + self.body(level) + self.pick("", "{{ b }}", "{{ varargs }}", "{{ kwargs }}", "{{ caller() if caller else '' }}") + self.tag("endmacro")
        self.names, self.loops = names, loops
        self.macros.append(name)
        return out + f"{{{{ {name}({self.arguments()}) }}}}"

    def call_(self, level):
        if not self.macros:
            return self.macro_(level)
        return self.tag(f"call {self.rng.choice(self.macros)}({self.arguments()})") + self.scoped(level) + self.tag("endcall")

    def misc_(self, level):
        return self.pick(lambda: f"{{{{ strftime_now('{self.pick('%Y-%m-%d', '%d %b %Y', '%A %H:%M')}') }}}}", lambda: self.tag(f"if {self.boolean()}") + "{{ raise_exception('no: ' ~ s) }}" + self.tag("endif"),
                         lambda: "{{ " + self.dict() + "." + self.pick("a", "role", "items", "missing", "name.first", "append", "update") + " }}",
                         lambda: "{{ messages[0]" + self.pick(".role", "['content']", ".tool_calls[0].name", ".none.more", "") + " }}", lambda: "{{ " + self.any() + "[" + self.any() + "] }}")()

    def template(self):
        return self.body(0) + self.pick("", "\n", "\n\n")
