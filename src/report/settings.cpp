#include "report/settings.h"

#include "job/job_fields.h"

namespace moerun {

namespace {

template <class T>
void add(const std::vector<Field<T>>& fields, const T& values, const GivenKeys& given,
         std::vector<Setting>& out) {
  const T standard;
  for (const Field<T>& field : fields) {
    Setting setting{.key = field.name, .value = field.write(values)};
    if (given.names.contains(field.name))
      setting.from = Setting::From::job;
    else if (setting.value != field.write(standard))
      setting.from = Setting::From::decided;
    out.push_back(std::move(setting));
  }
}

}  // namespace

std::vector<Setting> settings_of(const Job& job) {
  std::vector<Setting> settings;
  add(job_fields(), job, job.given, settings);
  if (job.input.random) add(random_input_fields(), *job.input.random, job.given, settings);
  return settings;
}

nlohmann::ordered_json settings_json(const Job& job) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const Setting& setting : settings_of(job))
    json[setting.key] = {{"value", setting.value},
                         {"from", setting.from == Setting::From::job        ? "job"
                                  : setting.from == Setting::From::standard ? "default"
                                                                            : "decided"}};
  return json;
}

}  // namespace moerun
