#include "job/job_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/shortened.h"
#include "comm/exchange_table.h"
#include "job/faults.h"
#include "job/job_fields.h"
#include "job/nearest.h"
#include "job/sampling_fields.h"
#include "job/yaml_tree.h"
#include "job/yaml_value.h"
#include "moerun/error.h"
#include "text/unicode.h"

namespace moerun {
namespace {

constexpr size_t kMostShown = 200;  // bytes of a key or an override, in messages

/// A value and where it stands: "FILE:LINE" or "command line: KEY=VALUE".
struct Placed {
  Json value;
  std::string where;
};

/// Everything that was given, by full key, before any value is looked at.
struct Given {
  std::map<std::string, Placed, std::less<>> values;
  std::map<std::string, std::string, std::less<>> sections;  ///< name → where
  Faults faults;
};

/// The names that a job may have: "sampling.seed" and the sections on the way, "sampling".
struct Names {
  std::vector<std::string> keys;
  std::set<std::string, std::less<>> sections, nested;

  Names() {
    for (const auto& field : job_fields()) {
      add(field.name);
      if (field.nested) nested.insert(field.name);
    }
    for (const auto& field : random_input_fields()) add(field.name);
  }
  void add(const std::string& key) {
    keys.push_back(key);
    for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1))
      sections.insert(key.substr(0, dot));
  }
  bool has_key(std::string_view name) const {
    return std::find(keys.begin(), keys.end(), name) != keys.end();
  }
  std::string nearest_to(std::string_view name) const {
    std::vector<std::string> all = keys;
    all.insert(all.end(), sections.begin(), sections.end());
    return nearest(name, all);
  }
};

/// Walks YAML and puts what it finds into Given. `where` says where a node stands.
class Walk {
 public:
  using Where = std::function<std::string(const YAML::Mark&)>;
  Walk(const Names& names, const std::string& text, Where where, bool is_override, Given& given)
      : names_(names), text_(text), where_(std::move(where)), is_override_(is_override), given_(given) {}

  /// The section `prefix` ("" is the job), `node` is a mapping.
  void section(const YamlNode& node, const std::string& prefix) {
    std::map<std::string, std::string> seen;
    for (const auto& [name, value] : node.entries) {
      const std::string where = where_(name.mark);
      if (!name.is(YamlNode::Kind::scalar)) {
        given_.faults.add(where, "a key must be a word");
        continue;
      }
      const std::string key = prefix.empty() ? name.scalar : prefix + "." + name.scalar;
      if (const auto [first, is_new] = seen.emplace(key, where); !is_new)
        given_.faults.add(
            where, fmt::format("{} is given twice, first at {}", shortened(key, kMostShown), first->second));
      else
        entry(key, value, where);
    }
  }

  void entry(const std::string& key, const YamlNode& node, const std::string& where) {
    if (names_.sections.contains(key)) {
      if (node.is(YamlNode::Kind::null))
        forget_section(key);
      else if (!node.is(YamlNode::Kind::map))
        given_.faults.add(where, fmt::format("{} is a section: it must have keys of its own", key));
      else
        enter_section(key, node, where);
    } else if (!names_.has_key(key)) {
      given_.faults.add(where, fmt::format("there is no key {}; did you mean {}?", shortened(key, kMostShown),
                                           names_.nearest_to(key)));
    } else {
      try {
        given_.values.insert_or_assign(
            key, Placed{value_of_yaml(node, text_, names_.nested.contains(key)), where});
        for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1))
          given_.sections.emplace(key.substr(0, dot), where);
      } catch (const BadInput& error) {
        given_.faults.add(where, fmt::format("{} {}", key, error.what()));
        given_.values.insert_or_assign(key, Placed{Json::value_t::discarded, where});
      }
    }
  }

 private:
  void enter_section(const std::string& key, const YamlNode& node, const std::string& where) {
    given_.sections.emplace(key, where);
    section(node, key);
  }

  void forget_section(const std::string& key) {
    if (!is_override_) return;
    const std::string prefix = key + ".";
    std::erase_if(given_.values, [&](const auto& item) { return item.first.starts_with(prefix); });
    given_.sections.erase(key);
  }

  const Names& names_;
  const std::string& text_;
  Where where_;
  bool is_override_;
  Given& given_;
};

/// The document of a text. One that is no YAML becomes a fault, and nothing.
std::optional<YamlNode> load(const std::string& text, const Walk::Where& where, Faults& faults) {
  // By its NULs yaml-cpp takes a text for UTF-16 or UTF-32, and makes of it what is no UTF-8.
  const size_t nul = text.find('\0');
  const std::optional<size_t> invalid = find_invalid_utf8(text);
  if (const size_t at = std::min(nul, invalid.value_or(std::string::npos)); at != std::string::npos) {
    YAML::Mark mark;
    mark.line =
        static_cast<int>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    faults.add(where(mark),
               fmt::format("byte {} is {}", at, at == nul ? "NUL: a job is UTF-8 text" : "no valid UTF-8"));
    return std::nullopt;
  }
  try {
    return read_yaml(text);
  } catch (const YamlFault& fault) {
    faults.add(where(fault.mark), fault.what);
    return std::nullopt;
  }
}

void read_file_text(const std::string& text, const std::string& file_name, const Names& names, Given& given) {
  const auto where = [&](const YAML::Mark& mark) {
    return fmt::format("{}:{}", file_name, std::max(mark.line, 0) + 1);
  };
  const std::optional<YamlNode> job = load(text, where, given.faults);
  if (job && !job->is(YamlNode::Kind::map) && !job->is(YamlNode::Kind::null))
    given.faults.add(where(job->mark), "a job is a mapping of keys to values");
  given.faults.throw_if_any();  // what a text that is no job lacks says nothing
  if (job->is(YamlNode::Kind::map)) Walk(names, text, where, false, given).section(*job, "");
}

/// Whether a plain value on the command line is read as it stands: YAML ends one at " #", and joins lines.
bool is_read_whole(const std::string& text, const YamlNode& value) {
  const auto is_blank = [](char c) { return c == ' ' || c == '\t'; };
  const auto begin = std::find_if_not(text.begin(), text.end(), is_blank);
  const auto end = std::find_if_not(text.rbegin(), std::make_reverse_iterator(begin), is_blank).base();
  if (value.is(YamlNode::Kind::null))
    return std::find(begin, end, '#') == end && std::find(begin, end, '\n') == end;
  const bool plain = value.is(YamlNode::Kind::scalar) && value.tag == "?";
  return !plain || std::string_view(begin, end) == value.scalar;
}

void read_override(const std::string& argument, const Names& names, Given& given) {
  const std::string place = "command line: " + shortened(argument, kMostShown);
  const auto where = [&place](const YAML::Mark&) -> const std::string& { return place; };
  const size_t equals = argument.find('=');
  if (equals == std::string::npos || equals == 0) return given.faults.add(place, "an override is key=value");
  const std::string text = argument.substr(equals + 1);
  const std::optional<YamlNode> value = load(text, where, given.faults);
  if (!value) return;
  if (!is_read_whole(text, *value))
    return given.faults.add(
        place, fmt::format("YAML reads {} of this value, without its comment or its line breaks: "
                           "put it in quotes of YAML's, as in KEY='\"a #1.h5\"'",
                           value->is(YamlNode::Kind::null) ? "nothing" : shown(value->scalar)));
  Walk(names, text, where, true, given).entry(argument.substr(0, equals), *value, place);
}

/// `device: null` means the device of this name, which YAML reads as nothing.
Json named_null(const std::string& key, const Json& value) {
  return key == "device" && value.is_null() ? Json("null") : value;
}

template <class T>
void read_fields(const std::vector<Field<T>>& fields, Given& given, T& target) {
  for (const Field<T>& field : fields) {
    const auto found = given.values.find(field.name);
    if (found == given.values.end() || found->second.value.is_discarded()) continue;
    const std::string wrong = field.read(named_null(field.name, found->second.value), target);
    if (!wrong.empty()) given.faults.add(found->second.where, fmt::format("{} {}", field.name, wrong));
  }
}

/// Where a missing key belongs: its section's place, else the file's first line.
std::string place_for(const std::string& key, const Given& given, const std::string& file_name) {
  const auto section = given.sections.find(std::string_view(key).substr(0, key.rfind('.')));
  return section != given.sections.end() ? section->second : file_name + ":1";
}

bool is_given(const std::string& key, const Given& given) {
  const auto found = given.values.find(key);
  return found != given.values.end() && !found->second.value.is_null();
}

void check_extension(const std::string& key, const std::string& path, const std::vector<std::string>& known,
                     Given& given) {
  const auto fits = [&](const std::string& extension) { return path.ends_with(extension); };
  if (path.empty() || std::any_of(known.begin(), known.end(), fits)) return;
  given.faults.add(given.values.at(key).where,
                   fmt::format("{} must end in {}, not {}", key, fmt::join(known, " or "), shown(path)));
}

void check_together(const Job& job, const std::string& file_name, Given& given) {
  std::vector<std::string> required{"model.path", "output.path"};
  const bool random = given.sections.contains("input.random");
  if (random)
    for (const char* key : {"num_prompts", "input_len", "output_len"})
      required.push_back(std::string("input.random.") + key);
  for (const std::string& key : required)
    if (!is_given(key, given))
      given.faults.add(place_for(key, given, file_name), fmt::format("{} is missing", key));
  if (random && is_given("input.path", given))
    given.faults.add(given.values.at("input.path").where,
                     "input.path and input.random exclude each other (input.random=null takes it away)");
  if (!random && !is_given("input.path", given))
    given.faults.add(place_for("input.path", given, file_name), "input.path (or input.random) is missing");
  check_extension("input.path", job.input.path, {".jsonl", ".h5", ".hdf5", ".txt"}, given);
  check_extension("output.path", job.output.path, {".h5", ".hdf5"}, given);
  check_extension("report.prometheus", job.report.prometheus, {".prom"}, given);
  if (!job.output.errors.empty() && job.output.jsonl.empty())
    given.faults.add(
        given.values.at("output.errors").where,
        "output.errors takes the lines of rows with an error out of output.jsonl, which is missing");
  if (job.null_step_ms != 0 && job.device != Job::DeviceKind::null)
    given.faults.add(given.values.at("null_step_ms").where, "null_step_ms is for device: null alone");
  if (job.parallel.all_to_all != Job::Parallel::AllToAll::automatic &&
      (job.device == Job::DeviceKind::cpu || job.device == Job::DeviceKind::null))
    for (const ExchangeRefusal& refusal :
         exchange_backend(job.parallel.all_to_all).refuses(ExpertMap(1, 1), {.gpus = false}))
      given.faults.add(given.values.at(refusal.key).where,
                       fmt::format("{}: {}", refusal.key, refusal.text()));
  if (const Contradiction wrong = contradiction(job.sampling); !wrong.what.empty())
    given.faults.add(place_for("sampling." + wrong.option, given, file_name), "sampling: " + wrong.what);
}

}  // namespace

std::string yaml_of(const Job& job) {
  std::vector<std::pair<std::string, Json>> entries;
  for (const auto& field : job_fields()) {
    entries.emplace_back(field.name, field.write(job));
    if (field.name == "input.path" && job.input.random)
      for (const auto& random : random_input_fields())
        entries.emplace_back(random.name, random.write(*job.input.random));
  }
  std::string yaml;
  std::vector<std::string> open;  // sections that the last line stands in
  for (const auto& [name, value] : entries) {
    std::vector<std::string> parts;
    size_t begin = 0;
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', begin)) {
      parts.push_back(name.substr(begin, dot - begin));
      begin = dot + 1;
    }
    const auto common = std::mismatch(open.begin(), open.end(), parts.begin(), parts.end()).second;
    for (auto part = common; part != parts.end(); ++part)
      yaml += fmt::format("{:{}}{}:\n", "", 2 * (part - parts.begin()), *part);
    yaml += fmt::format("{:{}}{}: {}\n", "", 2 * parts.size(), name.substr(begin), yaml_of_value(value));
    open = std::move(parts);
  }
  return yaml;
}

Job parse_job(const std::string& yaml_text, const std::string& file_name,
              const std::vector<std::string>& overrides) {
  const Names names;
  Given given;
  const bool has_bom = yaml_text.starts_with("\xEF\xBB\xBF");
  read_file_text(has_bom ? yaml_text.substr(3) : yaml_text, file_name, names, given);
  for (const std::string& argument : overrides) read_override(argument, names, given);

  Job job;
  read_fields(job_fields(), given, job);
  for (const auto& [key, placed] : given.values) job.given.names.insert(key);
  if (given.sections.contains("input.random"))
    read_fields(random_input_fields(), given, job.input.random.emplace());
  check_together(job, file_name, given);
  given.faults.throw_if_any();
  job.yaml = yaml_of(job);
  return job;
}

Job read_job(const std::string& path, const std::vector<std::string>& overrides) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  std::string text(kMostYamlBytes + 1, '\0');  // read_yaml refuses what is longer
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in.is_open() || errno != 0)
    throw BadInput(fmt::format("{} cannot be read: {}", path, std::strerror(errno)));
  text.resize(static_cast<size_t>(in.gcount()));
  return parse_job(text, path, overrides);
}

}  // namespace moerun
