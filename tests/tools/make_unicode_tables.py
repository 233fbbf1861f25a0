"""Makes src/text/unicode_tables.cpp: the character data of Unicode 16 that split patterns, added tokens and normalization look at.

Usage, from the repository's root: python tests/tools/make_unicode_tables.py
Needs PyPI unicodedata2 16.0.0 and tokenizers 0.21.2 or later. General categories are unicodedata2's; what it has not (scripts, and
which characters the NFC of `tokenizers`, which knows Unicode 9, leaves alone) is asked of `tokenizers`. What `tokenizers`
answers with them is held fast by tests/golden/text (its README says how a longer comparison is made).
"""
import unicodedata2 as ucd
from tokenizers import Regex
from tokenizers.normalizers import NFC, NFD
from tokenizers.pre_tokenizers import Split

assert ucd.unidata_version == "16.0.0"
OUT = "src/text/unicode_tables.cpp"
SCRIPTS = ["Han", "Hangul", "Hiragana", "Katakana"]
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, ALL))


def category_runs():
    runs, last = [], None
    for c in range(0x110000):
        category = ucd.category(chr(c))
        if category != last:
            runs.append((c, category))
            last = category
    return runs


def ranges(code_points):
    out = []
    for c in sorted(code_points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def members(regex):
    """Code points that a one-character Oniguruma pattern matches."""
    pieces = Split(Regex(regex + "+"), "removed", invert=True).pre_tokenize_str(TEXT)
    return [c for _, (begin, end) in pieces for c in ALL[begin:end]]


def inert():
    """Code points with a part in Unicode 16's NFC and none in that of `tokenizers`."""
    nfc, nfd, out = NFC(), NFD(), set()
    for c in ALL:
        char = chr(c)
        if ucd.combining(char) and char != "\u0345":  # U+0345 has the highest class
            if nfd.normalize_str("a\u0345" + char) != ucd.normalize("NFD", "a\u0345" + char):
                out.add(c)
        decomposition = ucd.decomposition(char)
        if decomposition and not decomposition.startswith("<"):
            parts = [chr(int(part, 16)) for part in decomposition.split()]
            if nfd.normalize_str(char) != ucd.normalize("NFD", char):
                out.add(c)
            if len(parts) == 2 and ucd.normalize("NFC", "".join(parts)) == char != nfc.normalize_str("".join(parts)):
                # A mark that was there before keeps its other compositions; the part that came with this one is not one of those.
                out.update(ord(part) for part in parts if not ucd.combining(part) or ord(part) in out)
    return out


def lines(items, per_line):
    return "\n".join("    " + " ".join(items[i:i + per_line]) for i in range(0, len(items), per_line))


with open(OUT, "w") as out:
    runs = category_runs()
    out.write("// Made by tests/tools/make_unicode_tables.py from the Unicode Character Database 16.0.0. Do not edit.\n// clang-format off\n"
              '#include "text/unicode_tables.h"\n\nnamespace moerun::unicode_tables {\nnamespace {\n\nusing enum Category;\n\n')
    out.write("constexpr CategoryRun kRuns[] = {\n" + lines([f"{{0x{c:X}, {name}}}," for c, name in runs], 10) + "\n};\n\n")
    for name in SCRIPTS:
        out.write(f"constexpr CodePointRange k{name}[] = {{\n" + lines([f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(members(f'\\p{{{name}}}'))], 7) + "\n};\n\n")
    out.write("constexpr CodePointRange kInert[] = {\n" + lines([f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(inert())], 7) + "\n};\n\n")
    out.write("constexpr Script kScripts[] = {" + ", ".join(f'{{"{name}", k{name}}}' for name in SCRIPTS) + "};\n\n}  // namespace\n\n"
              "std::span<const CategoryRun> category_runs() { return kRuns; }\nstd::span<const Script> scripts() { return kScripts; }\n"
              "std::span<const CodePointRange> nfc_inert() { return kInert; }\n\n}  // namespace moerun::unicode_tables\n")
