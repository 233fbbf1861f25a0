#include "report/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/shortened.h"
#include "report/html_text.h"
#include "report/page/sections.h"

namespace moerun {

namespace {

std::string value_text(const nlohmann::ordered_json& value) {
  constexpr size_t kMostShown = 400;  // bytes; a grammar may be long
  if (value.is_null()) return "–";
  return shortened(value.is_string() ? value.get<std::string>() : value.dump(), kMostShown);
}

/// The section of a key, and its name in it.
std::pair<std::string, std::string> split(const std::string& key) {
  const size_t dot = key.rfind('.');
  return dot == std::string::npos ? std::pair{std::string("the job"), key}
                                  : std::pair{key.substr(0, dot), key.substr(dot + 1)};
}

}  // namespace

std::string settings_section(const JobReport& report) {
  std::vector<std::pair<std::string, std::string>> tables;  // section, rows
  for (const Setting& setting : settings_of(*report.job)) {
    const std::pair<std::string, std::string> key = split(setting.key);
    auto table =
        std::find_if(tables.begin(), tables.end(), [&](const auto& one) { return one.first == key.first; });
    if (table == tables.end()) table = tables.insert(tables.end(), {key.first, ""});
    const auto [style, how] = setting.from == Setting::From::job        ? std::pair{"given", "given"}
                              : setting.from == Setting::From::standard ? std::pair{"standard", "default"}
                                                                        : std::pair{"decided", "decided"};
    table->second +=
        fmt::format("<tr class=\"{}\"><td>{}</td><td><code>{}</code></td><td class=\"how\">{}</td></tr>\n",
                    style, escaped(key.second), escaped(value_text(setting.value)), how);
  }
  std::string out =
      "<h2>Settings</h2>\n<p>Given: by the job’s file or the command line. Decided: by moerun for this model "
      "and "
      "machine, or by the model’s generation_config.json.</p>\n<div class=\"settings\">";
  for (const auto& [section, rows] : tables)
    out += fmt::format("<table><caption>{}</caption>{}</table>\n", escaped(section), rows);
  return out + "</div>\n";
}

}  // namespace moerun
