#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "moerun/job.h"

namespace moerun {

/// A key of a job as the job ran, and where its value is from.
struct Setting {
  enum class From {
    job,       ///< the job's file or the command line
    standard,  ///< its default
    decided,   ///< by moerun for this machine and model, or by the model's generation_config.json
  };
  std::string key;
  nlohmann::ordered_json value;
  From from = From::standard;
};

/// Every key, in the order in which a job is written.
std::vector<Setting> settings_of(const Job& job);

/// {key: {"value", "from": "job" | "default" | "decided"}}
nlohmann::ordered_json settings_json(const Job& job);

}  // namespace moerun
