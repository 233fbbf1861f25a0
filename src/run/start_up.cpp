#include "run/start_up.h"

#include <fmt/format.h>

#include <chrono>
#include <ctime>
#include <filesystem>

#include "base/time_text.h"
#include "device/factory.h"
#include "grammar/grammar.h"
#include "io/durable_file.h"
#include "io/file_state.h"
#include "io/run_directory.h"
#include "io/safetensors.h"
#include "job/faults.h"
#include "job/job_file.h"
#include "job/sampling_fields.h"
#include "model/config.h"
#include "model/generation_config.h"
#include "model/weight_source.h"
#include "moerun/error.h"
#include "moerun/wire.h"
#include "plan/checks.h"
#include "plan/run_plan_wire.h"
#include "run/identity.h"
#include "run/read_weights.h"
#include "run/reports.h"
#include "text/model_texts.h"
#include "text/thinking.h"

namespace moerun {

namespace {

/// Runs a check; what it finds wrong joins the rest, also what keeps it from looking. False when there is
/// something.
template <typename Check>
bool holds(Faults& faults, Check check) {
  try {
    check();
    return true;
  } catch (const Error& fault) {
    faults.add(fault.what());
    return false;
  }
}

/// What the user should know of the model's folder.
std::vector<std::string> notes_of(const Job& job, const ModelConfig& config, const std::string& defaults) {
  std::vector<std::string> notes = config.notes;
  const std::string name = generation_config_of(job.model.path);
  if (job.sampling_defaults == Job::SamplingDefaults::model)
    notes.push_back(fmt::format("sampling.defaults: {}, of {}", defaults, name));
  const std::string sampling = sampling_not_taken(read_generation_config(job.model.path), job.sampling, name);
  if (!sampling.empty()) notes.push_back(sampling);
  return notes;
}

/// What the job leaves out is what the model's folder says, where the job asks for that.
void take_sampling_defaults(Job& job, CheckedJob& out, Faults& faults) {
  if (job.sampling_defaults != Job::SamplingDefaults::model) return;
  holds(faults, [&] {
    out.sampling_defaults = "model: " + take_sampling(read_generation_config(job.model.path),
                                                      generation_config_of(job.model.path), job);
    job.yaml = yaml_of(job);
  });
}

void print_lines(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) fmt::print(stderr, "moerun: {}\n", line);
}

/// The device of a job on this machine. What `auto` becomes is the first line that a user sees.
Job::DeviceKind decide_and_say(Job::DeviceKind asked) {
  const Job::DeviceKind kind = resolve_device(asked);
  if (asked != Job::DeviceKind::automatic) return kind;
  if (kind == Job::DeviceKind::cuda)
    fmt::print(stderr, "moerun: device: auto is cuda\n");
  else
    fmt::print(stderr, "moerun: device: auto is cpu, because this machine has no NVIDIA GPU\n");
  return kind;
}

/// What rank 0 tells the others: an exit code where there is nothing to run, or what they need next.
struct Told {
  std::optional<int> exit_code;
  std::string text;   ///< the folder whose weights are to be read, or the packed plan
  int64_t start = 0;  ///< CheckedJob::start
  std::string texts_checksum;

  std::string pack() const {
    WireWriter out;
    out.put(exit_code.has_value()), out.put(exit_code.value_or(0)), out.put(text), out.put(start),
        out.put(texts_checksum);
    return out.take();
  }
  static Told unpack(const std::string& bytes) {
    WireReader in(bytes);
    Told told;
    const bool ends = in.get<bool>();
    const int code = in.get<int>();
    if (ends) told.exit_code = code;
    in.get(told.text);
    told.start = in.get<int64_t>();
    in.get(told.texts_checksum);
    return told;
  }
};

bool reads_weights(const Job& job) {
  return job.model.load_format != Job::Model::LoadFormat::dummy && job.device != Job::DeviceKind::null;
}

/// Whether a job's weights are read whole for their fingerprint.
bool reads_all_weights(const Job& job) {
  return reads_weights(job) && job.model.verify_weights == Job::Model::VerifyWeights::full;
}

/// What the model's folder says of texts, and whether the job's own sampling can do with it.
void take_texts(const Job& job, CheckedJob& out, std::vector<std::string>& notes, Faults& faults) {
  const ModelTexts texts = ModelTexts::load(job.model.path, out.start);
  out.texts_checksum = texts.checksum();
  if (texts.tokenizer) {
    out.tokenizer_checksum = texts.tokenizer->checksum();
    if (job.sampling.thinking_budget >= 0 && !thinking_markers(*texts.tokenizer))
      faults.add("sampling.thinking_budget", std::string(kNoThinkingMarkers));
    notes.insert(notes.end(), texts.tokenizer->notes().begin(), texts.tokenizer->notes().end());
  } else if (const auto need = tokenizer_need(job.sampling); job.input.random && need) {
    // The rows of a file say so themselves.
    faults.add("sampling." + need->option, fmt::format("{} {}/tokenizer.json, which is not there; {}",
                                                       need->what, job.model.path, need->instead));
  }
}

CheckedJob lead_check(const MpiEnv& env, const RunOptions& options) {
  Job job = read_job(options.job_path, options.overrides);
  job.device = decide_and_say(job.device);
  CheckedJob checked =
      check_job(std::move(job), {.num_ranks = env.size(), .hosts = env.hosts(), .command = options.command},
                options.job_path);
  print_lines(checked.input.warnings);
  return checked;
}

/// What was read becomes part of what the job is.
void take_weights(const WeightsRead& read, CheckedJob& checked) {
  if (!read.fault.empty()) throw BadInput(read.fault);
  checked.weights_checksum = read.fingerprint;
  constexpr double kWorthALine = 1;  // seconds
  if (read.seconds > kWorthALine)
    fmt::print(stderr,
               "moerun: weights: {:.2f} GB read in {:.1f} s for their fingerprint ({:.2f} GB/s, {} threads a "
               "node)\n",
               static_cast<double>(read.bytes) / 1e9, read.seconds,
               static_cast<double>(read.bytes) / 1e9 / read.seconds, read.readers);
}

/// Opens what an earlier run left, or starts anew; the plan for the other ranks.
Told lead_start(const CheckedJob& checked, const RunOptions& options, LeadFiles& files) {
  for (const std::string& directory : missing_output_directories(checked.job)) make_directories(directory);
  OpenedStore opened = open_result_store(checked.job, fingerprint_of(checked), provenance_of(checked),
                                         checked.input.num_rows, checked.input.openai, options.fresh);
  print_lines(opened.notices);
  if (opened.already_finished()) {
    write_owed_reports(checked.job, opened);
    const bool errors = opened.finished.num_row_errors > 0;
    return {.exit_code = static_cast<int>(errors ? ExitCode::row_errors : ExitCode::ok)};
  }
  files.directory = opened.directory;
  files.store = std::move(opened.store);
  files.source = open_input(checked.job, checked.config.vocab_size, checked.input);
  files.order_rows = checked.input.alike && checked.job.scheduler.prefix_sharing;
  return {.text = pack(checked), .start = checked.start, .texts_checksum = checked.texts_checksum};
}

/// Rank 0 does `lead` and tells the others what it returns; what it throws is printed and becomes an exit
/// code. Collective over world.
template <typename Lead>
Told lead_and_tell(const MpiEnv& env, Lead lead) {
  Told told;
  if (env.rank() == 0) {
    try {
      told = lead();
    } catch (const Error& error) {
      fmt::print(stderr, "moerun: {}\n", last_words(error));
      told = {.exit_code = static_cast<int>(error.code())};
    }
  }
  return Told::unpack(env.broadcast(told.pack()));
}

}  // namespace

CheckedJob check_job(Job job, const Machine& machine, const std::string& job_path) {
  Faults faults;
  CheckedJob out;
  holds(faults, [&] { out.start = job_start_time(); });
  const bool paths = holds(faults, [&] { check_paths(job, job_path); });
  const bool config = holds(faults, [&] { out.config = read_model_config(job.model.path); });
  std::vector<std::string> notes;  // of the model's folder
  if (config) {
    take_sampling_defaults(job, out, faults);
    notes = notes_of(job, out.config, out.sampling_defaults);
    decide_autos(job, out.config);
    holds(faults, [&] { static_cast<RunPlan&>(out) = plan_run(job, out.config, machine); });
    if (const int idle = out.layout.ep_size() - out.config.num_experts; idle > 0)
      notes.push_back(fmt::format(
          "{} of an engine's {} ranks have none of the model's {} experts: more engines of fewer ranks "
          "(parallel.replicas) would use them",
          idle, out.layout.ep_size(), out.config.num_experts));
    if (reads_weights(job))
      holds(faults, [&] {
        const Checkpoint checkpoint = Checkpoint::open(job.model.path);
        for (std::string& note : check_tensors(out.config, checkpoint)) notes.push_back(std::move(note));
        if (!reads_all_weights(job)) {
          out.weights_checksum = "sampled:" + sampled_checksum(checkpoint);
          notes.emplace_back(
              "model.verify_weights: sampled: of the weights, names, shapes and some values of each tensor "
              "are compared when the job goes on, not every byte");
        }
        notes.insert(notes.end(), checkpoint.notes().begin(), checkpoint.notes().end());
      });
    holds(faults, [&] { take_texts(job, out, notes, faults); });
  }
  if (const std::string wrong = grammar_fault(job.sampling.form); !wrong.empty())
    faults.add("sampling.structured_outputs", wrong);
  // Rows are checked against the vocabulary and the model's folder.
  if (config && paths) {
    holds(faults, [&] { out.input = check_input(job, out.config.vocab_size, out.start); });
    // A job that is finished needs no more room; one that goes on needs none for what it has sealed.
    if (out.input.num_rows > 0 && !std::filesystem::exists(job.output.path))
      holds(faults, [&] {
        const uint64_t sealed = bytes_in(run_directory_of(job.output.path));
        const size_t routed = out.routed().kept() ? out.routed().token_bytes() : 0;
        for (std::string& warning : check_disk(job, out.input.num_rows, sealed, routed))
          out.input.warnings.push_back(std::move(warning));
      });
  }
  faults.throw_if_any();
  out.input.warnings.insert(out.input.warnings.begin(), notes.begin(), notes.end());
  out.num_rows = out.input.num_rows;
  return out;
}

Start start_up(const MpiEnv& env, const RunOptions& options, LeadFiles& files) {
  std::optional<CheckedJob> checked;  // rank 0's
  Told told = lead_and_tell(env, [&]() -> Told {
    checked = lead_check(env, options);
    return {.text = reads_all_weights(checked->job) ? checked->job.model.path : ""};
  });
  if (told.exit_code) return {.exit_code = told.exit_code};
  std::optional<WeightsRead> weights;
  if (!told.text.empty()) weights = read_weights(env, told.text);
  told = lead_and_tell(env, [&] {
    if (weights) take_weights(*weights, *checked);
    return lead_start(*checked, options, files);
  });
  if (told.exit_code) return {.exit_code = told.exit_code};
  Start out{unpack_run_plan(told.text), told.start, told.texts_checksum};
  if (weights)
    out.weights_state = weights->state;
  else if (reads_weights(out.job))
    out.weights_state = state_of_files(weight_files(out.job.model.path));
  return out;
}

std::string last_words(const Error& error) {
  if (error.code() != ExitCode::stopped) return error.what();
  return fmt::format(
      "{}; what was sealed is kept, and the same command goes on with the rest when this is mended",
      error.what());
}

std::string layout_text(const Layout& layout) {
  return fmt::format("tensor {} × data {} × replicas {} on {} ranks, experts over {}", layout.tensor,
                     layout.data, layout.replicas, layout.world_size(), layout.ep_size());
}

std::string time_text() { return time_text_of(std::time(nullptr)); }

}  // namespace moerun
