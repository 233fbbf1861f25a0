#include "run/rank.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>

#include "moerun/error.h"

namespace moerun {

namespace {

/// proc(5)'s VmHWM. Not getrusage's: that begins with what the process held that started this program.
uint64_t peak_host_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    uint64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  throw Error("/proc/self/status does not say how much memory this process has used at most (VmHWM)");
}

}  // namespace

Rank::Rank(const MpiEnv& env, const Start& run, const Communicators& comms, Watchdog& watchdog)
    : env_(env),
      run_(run),
      comms_(comms),
      watchdog_(watchdog),
      plan_(plan_rank(run, env.rank())),
      agreement_(std::make_unique<StepAgreement>(comms.ep, &watchdog.progress())) {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  watchdog.set_phase(Phase::load);
  model_ = make_rank_model({env, run, plan_, comms, watchdog, run.weights_state});
  const int64_t num_blocks = agreed_blocks();
  model_->allocate_cache(num_blocks);
  if (plan_.is_leader()) leader_ = leader_parts(num_blocks);
  load_s_ = std::chrono::duration<double>(Clock::now() - began).count();
}

/// Every rank holds the same blocks, because a group's ranks follow one block table.
int64_t Rank::agreed_blocks() const {
  const int64_t here = model_->blocks_with_room();
  int64_t least = 0;
  MPI_CHECK(MPI_Allreduce(&here, &least, 1, MPI_INT64_T, MPI_MIN, env_.world()));
  if (const std::string wrong = too_few_blocks(run_, plan_.memory, least); !wrong.empty())
    throw BadInput(wrong);
  return least;
}

LeaderParts Rank::leader_parts(int64_t num_blocks) {
  const Job& job = run_.job;
  texts_ = ModelTexts::load_again(job.model.path, run_.start, run_.texts_checksum);
  Tokenizer* const tokenizer = texts_->tokenizer ? &*texts_->tokenizer : nullptr;
  const AnswerLimits limits{.max_model_len = job.model.max_model_len,
                            .truncate_prompts = truncates_prompts(job),
                            .eos_token_ids = run_.config.eos_token_ids,
                            .routed_bytes = run_.routed().kept() ? run_.routed().token_bytes() : 0};
  LeaderParts leader;
  const std::vector<int> leaders = leaders_of(run_.layout);
  const auto group = std::find(leaders.begin(), leaders.end(), env_.rank()) - leaders.begin();
  leader.link = std::make_unique<LeaderLink>(comms_.control, static_cast<int>(group));
  leader.preparer =
      std::make_unique<Preparer>(tokenizer, &texts_->chat_template, limits, run_.config.vocab_size);
  leader.scheduler = std::make_unique<Scheduler>(SchedulerOptions{
      .max_num_seqs = run_.sequences.most,
      .num_seqs_of_any_length = run_.sequences.of_any_length,
      .max_num_batched_tokens = job.scheduler.max_num_batched_tokens,
      .block_size = job.memory.block_size,
      .num_blocks = num_blocks,
      .num_host_blocks = plan_.memory.num_host_blocks,
      .states = {.chunk = run_.config.has_delta_nets() ? kDeltaChunk : 0,
                 .num_slots = plan_.memory.num_states,
                 .num_host_slots = plan_.memory.num_host_states},
      .limits = limits,
      // Random prompts begin alike by chance alone, and looking for it is work a row; but
      // several answers share theirs.
      .share_prefixes = job.scheduler.prefix_sharing && (!job.input.random || job.sampling.n > 1),
      .routed = run_.routed()});
  if (tokenizer != nullptr) {
    std::vector<int32_t> forbidden;  // thoughts are over where a form begins
    if (const auto markers = thinking_markers(*tokenizer)) forbidden = {markers->begin, markers->end};
    leader.grammars = std::make_unique<GrammarQueue>(
        GrammarCompiler::Vocabulary{tokenizer, run_.config.vocab_size, limits.eos_token_ids,
                                    std::move(forbidden), texts_->chat_template.tool_format()});
  }
  return leader;
}

void Rank::run() {
  watchdog_.set_phase(Phase::run);
  Engine engine({.runner = &model_->runner(),
                 .agreement = agreement_.get(),
                 .tp = comms_.tp,
                 .progress = &watchdog_.progress(),
                 .leader = plan_.is_leader() ? &leader_ : nullptr,
                 .exchange_seconds = [this] { return model_->exchange_seconds(); }});
  try {
    stats_ = engine.run();
    timeline_ = engine.timeline();
  } catch (const Error& error) {
    // The GPU says that a kernel gave up; the exchange knows for whom it waited.
    const std::string fault = model_->fault();
    if (fault.empty()) throw;
    throw Error(fmt::format("{} ({})", fault, error.what()));
  }
  stats_.forward_s -= model_->seconds_beside_steps();
}

RankReport Rank::report() const {
  const uint64_t peak = peak_host_bytes();
  RankReport out{.rank = env_.rank(),
                 .replica = plan_.at.replica,
                 .data = plan_.at.data,
                 .tensor = plan_.at.tensor,
                 .host = env_.host(),
                 .pid = getpid(),
                 .peak_host_bytes = peak,
                 .load_s = load_s_,
                 .engine = stats_,
                 .timeline = timeline_};
  model_->report(out);
  return out;
}

}  // namespace moerun
