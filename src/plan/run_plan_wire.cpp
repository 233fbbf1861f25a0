#include "plan/run_plan_wire.h"

#include <fmt/format.h>

#include "job/job_fields.h"
#include "model/config.h"
#include "moerun/error.h"
#include "moerun/wire.h"

namespace moerun {

namespace {

template <class T>
Json values_of(const std::vector<Field<T>>& fields, const T& source) {
  Json values = Json::array();
  for (const Field<T>& field : fields) values.push_back(field.write(source));
  return values;
}

template <class T>
void set_values(const std::vector<Field<T>>& fields, const Json& values, T& target) {
  if (!values.is_array() || values.size() != fields.size())
    throw Error("rank 0 sent a job of other keys: are all ranks the same program?");
  for (size_t i = 0; i < fields.size(); ++i)
    if (const std::string wrong = fields[i].read(values[i], target); !wrong.empty())
      throw Error(fmt::format("rank 0 sent a job whose {} {}: are all ranks the same program?",
                              fields[i].name, wrong));
}

}  // namespace

std::string pack_job(const Job& job) {
  const Json random = job.input.random ? values_of(random_input_fields(), *job.input.random) : Json();
  const std::vector<uint8_t> bytes =
      Json::to_cbor(Json::array({values_of(job_fields(), job), random, job.yaml, job.given.names}));
  return {bytes.begin(), bytes.end()};
}

Job unpack_job(const std::string& bytes) {
  const Json sent = Json::from_cbor(bytes, true, false);
  if (!sent.is_array() || sent.size() != 4 || !sent[2].is_string() || !sent[3].is_array())
    throw Error("rank 0 sent something that is no job: are all ranks the same program?");
  Job job;
  set_values(job_fields(), sent[0], job);
  if (!sent[1].is_null()) set_values(random_input_fields(), sent[1], job.input.random.emplace());
  job.yaml = sent[2].get<std::string>();
  for (const Json& key : sent[3])
    if (key.is_string()) job.given.names.insert(key.get<std::string>());
  return job;
}

std::string pack(const RunPlan& run) {
  WireWriter out;
  out.put(pack_job(run.job));
  out.put(run.config.checksum), out.put(run.config.eos_token_ids);
  for (const int size : {run.layout.tensor, run.layout.data, run.layout.replicas}) out.put(size);
  out.put(run.dtype);
  out.put(run.sequences.most), out.put(run.sequences.of_any_length);
  out.put(run.num_rows);
  return out.take();
}

RunPlan unpack_run_plan(const std::string& bytes) {
  WireReader in(bytes);
  RunPlan run{.job = unpack_job(in.get<std::string>())};
  run.config = read_model_config(run.job.model.path);
  if (in.get<std::string>() != run.config.checksum)
    throw Error(fmt::format("{}: this rank reads another configuration than rank 0 did", run.job.model.path));
  in.get(run.config.eos_token_ids);  // generation_config.json's, as rank 0 read it
  in.get(run.layout.tensor), in.get(run.layout.data), in.get(run.layout.replicas);
  in.get(run.dtype);
  in.get(run.sequences.most), in.get(run.sequences.of_any_length);
  in.get(run.num_rows);
  return run;
}

}  // namespace moerun
