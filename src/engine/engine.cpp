#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <thread>

#include "comm/mpi_env.h"
#include "engine/plan_wire.h"
#include "engine/rows_ahead.h"
#include "moerun/timed.h"

namespace moerun {

Engine::Engine(const Parts& parts) : parts_(parts) {
  MPI_CHECK(MPI_Comm_rank(parts_.tp, &tp_rank_));
  MPI_CHECK(MPI_Comm_size(parts_.tp, &tp_size_));
}

EngineStats Engine::run() {
  constexpr auto kIdle = std::chrono::milliseconds(1);
  std::optional<Timed> first_step(stats_.first_step_s);
  std::vector<int32_t> tokens_of_rank;
  began_ = std::chrono::steady_clock::now();
  for (;;) {
    sample_timeline(false);
    parts_.progress->begin_step(stats_.steps);
    double step_s = 0;
    std::optional<Timed> step(step_s);
    int32_t flags = 0;
    StepPlan plan = parts_.leader ? plan_step(flags) : StepPlan();
    broadcast(plan, flags);
    const TokenPart part = part_of_step(plan.num_tokens(), tp_size_, tp_rank_);
    int64_t tokens = 0;
    bool finished = true;
    {
      const Timed timed(stats_.agree_s);
      tokens_of_rank.clear();
      for (const StepBid& bid : parts_.agreement->agree({static_cast<int32_t>(part.count()), flags})) {
        tokens_of_rank.push_back(bid.num_tokens);
        tokens += bid.num_tokens;
        finished = finished && (bid.flags & kFinished) != 0;
      }
    }
    if (finished) break;
    if (tokens == 0) {  // nobody has work, and somebody expects some: the leaders look again soon
      const Timed timed(stats_.idle_s);
      if (parts_.leader) std::this_thread::sleep_for(kIdle);
      continue;
    }
    StepResult mine;
    {
      const Timed timed(stats_.forward_s);
      parts_.runner->submit(plan, tokens_of_rank);
    }
    fill_masks(plan);
    if (parts_.leader) talk();
    {
      const Timed timed(stats_.forward_s);
      mine = parts_.runner->collect();
    }
    const StepResult all = gather(plan, std::move(mine));
    if (parts_.leader) answer(plan, all);
    step.reset();
    if (parts_.leader && plan.num_prefill_seqs == 0 &&
        plan.num_tokens() == parts_.leader->scheduler->options().max_num_seqs) {
      ++stats_.full_decode_steps.steps;
      stats_.full_decode_steps.seconds += step_s;
    }
    ++stats_.steps;
    first_step.reset();
  }
  sample_timeline(true);
  if (parts_.leader) {
    const Scheduler& scheduler = *parts_.leader->scheduler;
    if (scheduler.options().share_prefixes) stats_.prompt_distinct = distinct_.count();
    stats_.preemptions = scheduler.num_preemptions();
    stats_.swaps = scheduler.num_swaps();
    stats_.max_blocks_used = scheduler.max_blocks_used();
    stats_.num_blocks = scheduler.cache().num_blocks();
    parts_.leader->link->finish();
  }
  return stats_;
}

void Engine::sample_timeline(bool last) {
  const double now = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  if (!last && !timeline_.due(now)) return;
  timeline_.sample(now, stats_, parts_.exchange_seconds ? parts_.exchange_seconds() : ExchangeSeconds());
}

StepPlan Engine::plan_step(int32_t& flags) {
  Scheduler& scheduler = *parts_.leader->scheduler;
  const LeaderLink& link = *parts_.leader->link;
  // Rows and answers travel while a step runs; here only where this step would go without.
  if (scheduler.idle()) talk();
  const Timed timed(stats_.plan_s);
  if (num_waiting() == 0) take_rows();
  take_grammars();
  if (link.stop() != Stop::none && parts_.leader->grammars) parts_.leader->grammars->clear();
  if (link.stop() == Stop::drain) scheduler.drop_waiting();
  if (link.stop() == Stop::now) scheduler.drop_all();
  scheduler.set_rows_left(link.rows_left());
  StepPlan plan = scheduler.schedule();
  if (scheduler.idle() && num_waiting() == 0 && (link.no_more() || link.stop() != Stop::none))
    flags |= kFinished;
  return plan;
}

void Engine::talk() {
  const Timed timed(stats_.talk_s);
  const Scheduler& scheduler = *parts_.leader->scheduler;
  // Rows whose grammars are being compiled cannot run yet, and must not keep others out that can.
  constexpr int64_t kMostCompiling = 1024;
  const int64_t compiling = parts_.leader->grammars ? parts_.leader->grammars->num_answers() : 0;
  const int64_t waiting = num_waiting() - std::min(compiling, kMostCompiling);
  const int64_t want = repeated_.full() ? 0 : rows_to_ask_for(scheduler, distinct_, waiting);
  parts_.leader->link->report(want, {.running = scheduler.num_running(),
                                     .waiting = num_waiting(),
                                     .steps = stats_.steps,
                                     .blocks_used = scheduler.cache().num_used(),
                                     .num_blocks = scheduler.cache().num_blocks()});
  take_rows();
}

void Engine::take_rows() {
  LeaderParts& leader = *parts_.leader;
  const bool shares = leader.scheduler->options().share_prefixes;
  for (LeaderLink::Row& row : leader.link->poll()) {
    auto prepared = leader.preparer->prepare(std::move(row.record));
    auto* const sequence = std::get_if<Sequence>(&prepared);
    if (!sequence) {
      add_answer(std::get<RowResult>(std::move(prepared)));
      continue;
    }
    auto turn = RepeatedRows::Turn::computes;
    RowResult answer;
    if (shares) {
      distinct_.add(sequence->prompt(), row.place);
      if (row.place.ordered) turn = repeated_.add(*sequence, answer);  // equal rows meet
    }
    if (turn == RepeatedRows::Turn::computes)
      enqueue(std::move(*sequence));
    else if (turn == RepeatedRows::Turn::answered)
      add_repeated_answer(std::move(answer));
  }
}

void Engine::enqueue(Sequence sequence) {
  if (sequence.needs_grammar())
    parts_.leader->grammars->add(std::move(sequence));
  else
    parts_.leader->scheduler->add(std::move(sequence));
}

void Engine::take_grammars() {
  if (!parts_.leader->grammars) return;
  for (auto& ready : parts_.leader->grammars->take_ready())
    if (auto* const sequence = std::get_if<Sequence>(&ready))
      parts_.leader->scheduler->add(std::move(*sequence));
    else
      add_finished(std::get<RowResult>(std::move(ready)));
}

int64_t Engine::num_waiting() const {
  const LeaderParts& leader = *parts_.leader;
  return leader.scheduler->num_waiting() + (leader.grammars ? leader.grammars->num_answers() : 0);
}

void Engine::add_finished(RowResult result) {
  for (RowResult& other : repeated_.finish(result)) add_repeated_answer(std::move(other));
  add_answer(std::move(result));
}

void Engine::add_answer(RowResult result) {
  if (result.prompt_truncated > 0) {
    ++stats_.truncated_rows;
    stats_.prompt_truncated += result.prompt_truncated;
  }
  parts_.leader->link->add(std::move(result));
}

void Engine::add_repeated_answer(RowResult result) {
  ++stats_.repeated_rows;
  uint64_t tokens = result.token_ids.size();
  for (const Answer& answer : result.more_answers) tokens += answer.token_ids.size();
  const uint64_t answers = 1 + result.more_answers.size();
  parts_.leader->link->count(answers * static_cast<uint64_t>(result.prompt_length), tokens);
  add_answer(std::move(result));
}

void Engine::broadcast(StepPlan& plan, int32_t& flags) {
  if (tp_size_ == 1) return;
  const Waiting waiting(parts_.progress);
  std::string bytes = parts_.leader ? pack(plan) : std::string();
  int64_t header[2] = {flags, static_cast<int64_t>(bytes.size())};
  MPI_CHECK(MPI_Bcast(header, 2, MPI_INT64_T, 0, parts_.tp));
  bytes.resize(static_cast<size_t>(header[1]));
  MPI_CHECK(MPI_Bcast(bytes.data(), byte_count(bytes.size()), MPI_BYTE, 0, parts_.tp));
  if (parts_.leader) return;
  flags = static_cast<int32_t>(header[0]);
  plan = unpack_plan(bytes);
}

void Engine::fill_masks(StepPlan& plan) {
  if (parts_.leader) {
    const Timed timed(stats_.mask_s);
    parts_.leader->scheduler->fill_masks(plan);
  }
  if (plan.num_masks == 0 || tp_size_ == 1) return;
  const Waiting waiting(parts_.progress);
  plan.masks.resize(static_cast<size_t>(plan.num_masks) * static_cast<size_t>(plan.mask_words));
  MPI_CHECK(MPI_Bcast(plan.masks.data(), byte_count(plan.masks.size()), MPI_UINT32_T, 0, parts_.tp));
}

StepResult Engine::gather(const StepPlan& plan, StepResult mine) {
  if (tp_size_ == 1) return mine;  // all rows, in order
  const Waiting waiting(parts_.progress);
  const std::string bytes = pack(mine);
  const int size = byte_count(bytes.size());
  std::vector<int> sizes(static_cast<size_t>(tp_size_)), begins(sizes.size());
  MPI_CHECK(MPI_Gather(&size, 1, MPI_INT, sizes.data(), 1, MPI_INT, 0, parts_.tp));
  std::exclusive_scan(sizes.begin(), sizes.end(), begins.begin(), 0);
  std::string all(parts_.leader ? static_cast<size_t>(begins.back() + sizes.back()) : 0, '\0');
  MPI_CHECK(MPI_Gatherv(bytes.data(), size, MPI_BYTE, all.data(), sizes.data(), begins.data(), MPI_BYTE, 0,
                        parts_.tp));
  StepResult result;
  if (!parts_.leader) return result;
  result.results.resize(plan.logit_rows.size());
  for (size_t rank = 0; rank < sizes.size(); ++rank) {  // their parts are the step's tokens in order
    WireReader in(all.data() + begins[rank], static_cast<size_t>(sizes[rank]));
    add_result(in, result);
  }
  return result;
}

void Engine::answer(const StepPlan& plan, const StepResult& result) {
  const Timed timed(stats_.answer_s);
  LeaderParts& leader = *parts_.leader;
  const auto drawn = static_cast<uint64_t>(std::count_if(plan.logit_rows.begin(), plan.logit_rows.end(),
                                                         [](const LogitRow& row) { return row.target < 0; }));
  // What prefills is prompt; a token that decodes was drawn before, and counted then.
  const auto prompt = static_cast<uint64_t>(plan.cu_seqlens_q[static_cast<size_t>(plan.num_prefill_seqs)]);
  stats_.prompt_tokens += static_cast<int64_t>(prompt);
  stats_.output_tokens += static_cast<int64_t>(drawn);
  // What a prompt takes over from another is done too.
  const int64_t shared = leader.scheduler->num_shared_tokens();
  leader.link->count(prompt + static_cast<uint64_t>(shared - counted_shared_), drawn);
  counted_shared_ = shared;
  leader.scheduler->take_routed(plan, result.routed);
  for (RowResult& row : leader.scheduler->postprocess(plan, result.results)) add_finished(std::move(row));
}

}  // namespace moerun
