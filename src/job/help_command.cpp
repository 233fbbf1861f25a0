#include "job/help_command.h"

#include <fmt/format.h>

#include <array>

#include "job/key_docs.h"
#include "moerun/error.h"

namespace moerun {

namespace {

struct Line {
  const char *term, *meaning;
};

constexpr std::array<Line, 11> kCommands{{
    {"moerun JOB.yaml [KEY=VALUE ...] [--fresh]", "run, or resume, a job on one rank"},
    {"mpirun -n RANKS moerun JOB.yaml [KEY=VALUE ...]",
     "the same on several, one a GPU; srun --mpi=pmix in Slurm"},
    {"moerun check [--ranks N] [--gpu NAME] [--measured FILE] JOB.yaml [KEY=VALUE ...]",
     "every check that needs no GPU, then what would run"},
    {"moerun tokenize MODEL_DIR < lines.jsonl", "{\"text\"|\"messages\"} a line in, {\"ids\"} a line out"},
    {"moerun tokenize --render MODEL_DIR < lines.jsonl",
     "{\"messages\"} a line in, the rendered {\"text\"} a line out"},
    {"moerun quantize IN OUT", "a model's folder in 16 or 32 bits → one in block-scaled FP8"},
    {"moerun status OUTPUT",
     "how a job stands: rows, rate, time left, each group; while it runs, after it died"},
    {"moerun results OUTPUT.run", "the answers that are sealed so far as JSON lines, in row order"},
    {"moerun help keys", "every key of a job: type, default, meaning"},
    {"moerun COMMAND --help", "the options of a command"},
    {"moerun --version", "the version and its revision"},
}};

constexpr std::array<Line, 6> kExitCodes{{
    {"0", "every row answered"},
    {"2", "bad job or input; nothing ran"},
    {"3", "finished; some rows carry an error"},
    {"4", "of moerun status: the job runs"},
    {"75", "stopped early on a signal, a time limit or a full disk; the same command resumes"},
    {"1", "a fault; the same command resumes"},
}};

/// What roff would take for markup.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '-' ? std::string("\\-") : std::string(1, c);
  return out;
}

std::string manual_page(const std::string& version) {
  std::string out = fmt::format(
      ".TH MOERUN 1 \"\" \"moerun {}\" \"User Commands\"\n.SH NAME\n"
      "moerun \\- runs a Mixture-of-Experts language model over prompt files as an MPI batch job\n.SH "
      "SYNOPSIS\n",
      escaped(version));
  for (const Line& line : kCommands)
    out += fmt::format(".TP\n.B {}\n{}\n", escaped(line.term), escaped(line.meaning));
  out +=
      ".SH DESCRIPTION\nA job is a YAML file: a model's folder, an input, an output, and how they run. While "
      "it "
      "runs, answers are sealed beside the output every few seconds; the same command goes on with the rest, "
      "and answers no row twice.\n.SH KEYS\nThe keys of a job. In YAML a dot is a section (model: {path: "
      "\\&...}); "
      "on the command line KEY=VALUE overrides the job\\(aqs.\n";
  out += keys_as_roff() + ".SH EXIT STATUS\n";
  for (const Line& line : kExitCodes) out += fmt::format(".TP\n.B {}\n{}\n", line.term, line.meaning);
  return out;
}

}  // namespace

std::string usage_text() {
  std::string out;
  for (const Line& line : kCommands) out += fmt::format("  {}\n      {}\n", line.term, line.meaning);
  return out;
}

std::string help_footer() {
  std::string out =
      "Every key of a job (type, default, meaning): moerun help keys, or man moerun. KEY=VALUE overrides "
      "one:\n"
      "parallel.tensor=4, sampling.temperature=0.7, output.path=out/b.h5\n\nExit codes:\n";
  for (const Line& line : kExitCodes) out += fmt::format("  {:<3} {}\n", line.term, line.meaning);
  return out;
}

std::string help_text(const std::string& topic, const std::string& version) {
  if (topic == "keys") return keys_as_text();
  if (topic == "keys-markdown") return keys_as_markdown();
  if (topic == "man") return manual_page(version);
  throw BadInput(fmt::format("there is no help on {}: moerun help keys, moerun --help", topic));
}

}  // namespace moerun
