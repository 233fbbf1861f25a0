// Times dispatch + combine of an expert exchange with the shapes of Qwen3-30B-A3B, one rank a GPU (or CPU
// ranks), against the cost model and against all-gather + reduce-scatter of the same rows. Before anything is
// timed, the exchange's sums are compared with sums made here from the tokens alone, to the last bit.
//
// Usage: mpirun -n RANKS exchange_bench [--all-to-all p2p] [--device cuda] [--json FILE] ...   (--help)
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>

#include "comm/backends.h"
#include "comm/cost_model.h"
#include "comm/exchange_table.h"
#include "comm/mpi_env.h"
#include "device/factory.h"
#include "moerun/error.h"
#include "plan/run_plan.h"
#include "tests/bench/exchange_check.h"

using namespace moerun;

namespace {

struct Options {
  Job::DeviceKind device = Job::DeviceKind::automatic;
  Job::Parallel::AllToAll all_to_all = Job::Parallel::AllToAll::automatic;
  std::vector<int32_t> tokens{1, 8, 64, 256, 1024, 4096, 8192};
  std::vector<double> links{450, 370};
  int32_t hidden = 2048, num_experts = 128, num_experts_per_tok = 8;
  int rounds = 30;
  double memory = 0.4;  // of a GPU: little, so that two ranks can try one
  std::string json;
};

/// What was measured at one number of tokens a rank. Times are medians over rounds of the slowest rank's.
struct Row {
  int32_t tokens = 0;
  double us = 0, all_gather_reduce_scatter_us = 0;
  double dispatch_bytes = 0, combine_bytes = 0;  ///< that the busiest rank sends: each token once a rank
  bool graph = false;
};

class Bench {
 public:
  Bench(const MpiEnv& env, const Options& options)
      : env_(env),
        options_(options),
        max_tokens_(std::max(kCheckTokens, *std::max_element(options.tokens.begin(), options.tokens.end()))),
        experts_(options.num_experts, env.size()),
        device_(make_device(options.device, {.dtype = resolve_dtype(options.device, {}, DType::bfloat16),
                                             .local_rank = env.local_rank(),
                                             .local_size = env.local_size(),
                                             .speaks = env.rank() == 0,
                                             .memory = {.gpu_memory_utilization = options.memory}})),
        backends_(make_backends({.all_to_all = options.all_to_all,
                                 .ep = env.world(),
                                 .tp = env.world(),
                                 .experts = &experts_,
                                 .device = device_.get(),
                                 .part_tokens = max_tokens_,
                                 .group_tokens = int64_t{max_tokens_} * env.size(),
                                 .hidden_size = options.hidden,
                                 .num_experts_per_tok = options.num_experts_per_tok})),
        random_(seed()),
        x_(device_->tensor(max_tokens_, options.hidden, device_->dtype(), "bench")),
        out_(device_->tensor(max_tokens_, options.hidden, device_->dtype(), "bench")),
        all_(device_->tensor(int64_t{max_tokens_} * env.size(), options.hidden, device_->dtype(), "bench")),
        weights_(device_->tensor(max_tokens_, options.num_experts_per_tok, DType::float32, "bench")),
        ids_(device_->ints(int64_t{max_tokens_} * options.num_experts_per_tok, "bench")) {}

  std::string device_name() const { return device_->name(); }
  /// Whether two ranks are on one GPU. Collective over world.
  bool shares_gpu() const {
    std::vector<std::string> uuids = env_.all_gather(device_->uuid());
    std::sort(uuids.begin(), uuids.end());
    return !uuids.front().empty() && std::adjacent_find(uuids.begin(), uuids.end()) != uuids.end();
  }
  const Backends& backends() const { return backends_; }

  /// Throws Error at every rank when an exchange's sums have other bits than the tokens' own at any rank.
  void check() {
    check({.most = kCheckTokens, .last_has_none = false});
    check({.most = kCheckTokens, .last_has_none = true});
    // Large steps may go another way (NcclExchange::Choice).
    constexpr int32_t kLarge = 1100;
    if (max_tokens_ >= kLarge) check({.most = kLarge, .last_has_none = false});
  }

  Row measure(int32_t tokens) {
    Row row{.tokens = tokens};
    const ExchangeTokens mine = random_tokens(tokens);
    upload(mine);
    count_bytes(mine, row);
    ExpertExchange& exchange = *backends_.exchange;
    exchange.begin_step(std::vector<int32_t>(static_cast<size_t>(env_.size()), tokens));
    row.graph = exchange.capturable();
    const Routed routed = own(tokens);
    row.us = median_us(row.graph, tokens, [&] {
      exchange.dispatch(routed, out_.first(tokens));
      exchange.combine(out_.first(tokens));
    });
    Collective& collective = *backends_.tp;
    const Tensor all = all_.first(int64_t{tokens} * env_.size());
    row.all_gather_reduce_scatter_us = median_us(collective.capturable(), tokens, [&] {
      collective.all_gather(x_.first(tokens), all);
      collective.reduce_scatter(all, out_.first(tokens));
    });
    return row;
  }

 private:
  static constexpr int32_t kCheckTokens = 128;

  /// Uneven shares: rank 0 brings `most` tokens.
  struct Shares {
    int32_t most;
    bool last_has_none;
  };
  void check(const Shares& shares) {
    std::vector<int32_t> step;
    for (int r = 0; r < env_.size(); ++r) step.push_back(1 + (shares.most - 1 + r * 91) % shares.most);
    if (shares.last_has_none) step.back() = 0;
    for (const std::string& found : env_.all_gather(check_step(step)))
      if (!found.empty()) throw Error(found);
  }

  uint64_t seed() const {
    uint64_t seed = std::random_device()();
    MPI_CHECK(MPI_Bcast(&seed, 1, MPI_UINT64_T, 0, env_.world()));
    if (env_.rank() == 0) fmt::print("seed {}\n", seed);
    return seed + static_cast<uint64_t>(env_.rank()) * 0x9E3779B97F4A7C15ull;
  }
  ExchangeTokens random_tokens(int32_t n) {
    return make_exchange_tokens(random_, n, options_.hidden, options_.num_experts,
                                options_.num_experts_per_tok, device_->dtype());
  }
  void upload(const ExchangeTokens& tokens) {
    device_->copy_to_device(x_.data, tokens.x.data(), tokens.x.size());
    device_->copy_to_device(ids_.data, tokens.ids.data(), tokens.ids.size() * 4);
    device_->copy_to_device(weights_.data, tokens.weights.data(), tokens.weights.size() * 4);
    device_->synchronize();
  }
  Routed own(int32_t n) const {
    return {.x = x_.first(n),
            .topk_ids = {ids_.data, int64_t{n} * options_.num_experts_per_tok},
            .topk_weights = weights_.first(n)};
  }
  /// A graph of its own where the work can be recorded: the device replays a shape that comes again.
  void run(bool record, const StepShape& shape, const std::function<void()>& body) {
    if (record)
      device_->run(shape, body);
    else
      body();
  }
  StepShape new_shape(int32_t tokens) { return {.num_tokens = tokens, .num_seqs = ++shapes_}; }

  std::string check_step(const std::vector<int32_t>& step);
  /// The busiest rank's, of `tokens` at every rank.
  void count_bytes(const ExchangeTokens& tokens, Row& row) const;
  double median_us(bool record, int32_t tokens, const std::function<void()>& exchange_once);

  const MpiEnv& env_;
  const Options& options_;
  int32_t max_tokens_;
  ExpertMap experts_;
  std::unique_ptr<Device> device_;
  Backends backends_;
  std::mt19937_64 random_;
  Tensor x_, out_;  // [max_tokens, hidden]
  Tensor all_;      // [ranks · max_tokens, hidden]
  Tensor weights_;  // [max_tokens, k]
  Ints ids_;
  int32_t shapes_ = 0;
};

std::string Bench::check_step(const std::vector<int32_t>& step) {
  const int32_t n = step[static_cast<size_t>(env_.rank())];
  ExpertExchange& exchange = *backends_.exchange;
  exchange.begin_step(step);
  const bool record = exchange.capturable();
  const StepShape dispatch = new_shape(n), combine = new_shape(n);
  const ExchangeCheck check(experts_, env_.rank(), *device_);
  Dispatched arrived;  // a replay leaves it as the recording did
  std::string fault;
  // As they come, recorded, and replayed; with other tokens each time.
  for (int round = 0; round < 4; ++round) {
    const ExchangeTokens mine = random_tokens(n);
    upload(mine);
    check.poison(out_);
    std::vector<int32_t> to = check.tokens_to_rank(mine), from(to.size());
    MPI_CHECK(MPI_Alltoall(to.data(), 1, MPI_INT32_T, from.data(), 1, MPI_INT32_T, env_.world()));
    run(record, dispatch, [&] { arrived = exchange.dispatch(own(n), out_.first(n)); });
    const int64_t rows = check.compute(arrived);
    run(record, combine, [&] { exchange.combine(out_.first(n)); });
    device_->synchronize();
    const int64_t expected = std::accumulate(from.begin(), from.end(), int64_t{0});
    if (fault.empty() && rows != expected)
      fault = fmt::format("rank {}: {} tokens arrived for its experts, not {}", env_.rank(), rows, expected);
    if (fault.empty()) fault = check.compare(mine, out_.first(n));
  }
  return fault;
}

void Bench::count_bytes(const ExchangeTokens& tokens, Row& row) const {
  const std::vector<int32_t> to = ExchangeCheck(experts_, env_.rank(), *device_).tokens_to_rank(tokens);
  const double sent = std::accumulate(to.begin(), to.end(), 0) - to[static_cast<size_t>(env_.rank())];
  const ExchangeLoad load{.hidden_size = options_.hidden,
                          .element_bytes = static_cast<int64_t>(size_of(device_->dtype())),
                          .num_experts_per_tok = options_.num_experts_per_tok};
  double bytes[2] = {sent * (load.row_bytes() + load.routing_bytes()), sent * load.row_bytes()};
  MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, bytes, 2, MPI_DOUBLE, MPI_MAX, env_.world()));
  row.dispatch_bytes = bytes[0], row.combine_bytes = bytes[1];
}

double Bench::median_us(bool record, int32_t tokens, const std::function<void()>& exchange_once) {
  using Clock = std::chrono::steady_clock;
  constexpr double kEnough = 2;  // seconds
  const int repeats = tokens >= 1024 ? 4 : 16;
  const StepShape shape = new_shape(tokens);
  const auto once = [&] {
    run(record, shape, [&] {
      for (int i = 0; i < repeats; ++i) exchange_once();
    });
    device_->synchronize();
  };
  for (int i = 0; i < 3; ++i) once();  // as it comes, recorded, replayed
  std::vector<double> times;
  // The slowest rank's time is the same at every rank, and so is the number of rounds.
  for (double total = 0;
       static_cast<int>(times.size()) < options_.rounds && (times.size() < 3 || total < kEnough);) {
    MPI_CHECK(MPI_Barrier(env_.world()));
    const Clock::time_point began = Clock::now();
    once();
    double seconds = std::chrono::duration<double>(Clock::now() - began).count();
    MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, env_.world()));
    total += seconds;
    times.push_back(seconds / repeats * 1e6);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

int parse(int argc, char** argv, Options& options) {
  CLI::App app("Times dispatch + combine of an expert exchange: mpirun -n RANKS exchange_bench ...");
  const std::map<std::string, Job::DeviceKind> devices{
      {"auto", Job::DeviceKind::automatic}, {"cpu", Job::DeviceKind::cpu}, {"cuda", Job::DeviceKind::cuda}};
  std::map<std::string, Job::Parallel::AllToAll> exchanges{{"auto", Job::Parallel::AllToAll::automatic}};
  for (const ExchangeBackend& backend : exchange_backends()) exchanges[backend.name] = backend.all_to_all;
  app.add_option("--device", options.device, "auto, cpu or cuda")
      ->transform(CLI::CheckedTransformer(devices));
  app.add_option("--all-to-all", options.all_to_all, "auto, mpi, nccl or p2p")
      ->transform(CLI::CheckedTransformer(exchanges));
  app.add_option("--tokens", options.tokens, "tokens a rank, comma-separated")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--links", options.links, "GB/s each way that the cost model assumes, comma-separated")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--hidden", options.hidden, "elements of a token")->check(CLI::PositiveNumber);
  app.add_option("--num-experts", options.num_experts, "of a layer")->check(CLI::PositiveNumber);
  app.add_option("--num-experts-per-tok", options.num_experts_per_tok, "that a token goes to")
      ->check(CLI::PositiveNumber);
  app.add_option("--rounds", options.rounds, "timed rounds")->check(CLI::PositiveNumber);
  app.add_option("--memory", options.memory, "part of the GPU's memory that a rank takes")
      ->check(CLI::Range(0.01, 1.0));
  app.add_option("--json", options.json, "file for one JSON object a line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::bad_input);
  }
  if (options.num_experts_per_tok > options.num_experts) {
    fmt::print(stderr, "exchange_bench: {} experts a token, of {}\n", options.num_experts_per_tok,
               options.num_experts);
    return static_cast<int>(ExitCode::bad_input);
  }
  return -1;
}

/// Rank 0's table and JSON lines.
class Printer {
 public:
  Printer(const Options& options, const Bench& bench, int ranks, DType dtype, bool shares_gpu)
      : options_(options),
        ranks_(ranks),
        dtype_(dtype),
        shares_gpu_(shares_gpu),
        name_(bench.backends().all_to_all),
        device_(bench.device_name()),
        date_(fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)))) {
    if (!options.json.empty()) {
      file_.open(options.json);
      if (!file_) throw Error(fmt::format("{}: cannot be written", options.json));
    }
    fmt::print("{} ({}): {} ranks on {}, hidden {}, {} experts, {} a token, {}\n", name_,
               bench.backends().why, ranks, device_, options.hidden, options.num_experts,
               options.num_experts_per_tok, name_of(dtype));
    fmt::print("the sums have the bits that the tokens alone give\n");
    if (shares_gpu) fmt::print("ranks share a GPU: the times say nothing about links between GPUs\n");
    fmt::print("{:>8} {:>10} {:>11} {:>9}", "tokens", "us", "MB each way", "GB/s");
    for (const double link : options.links) fmt::print("{:>16}", fmt::format("model {:.0f} GB/s", link));
    fmt::print("{:>10}", "AG+RS us");
    for (const double link : options.links) fmt::print("{:>16}", fmt::format("AG+RS {:.0f} GB/s", link));
    fmt::print("\n");
  }

  void print(const Row& row) {
    const ExchangeLoad load{.ranks = ranks_,
                            .tokens = static_cast<double>(row.tokens),
                            .hidden_size = options_.hidden,
                            .element_bytes = static_cast<int64_t>(size_of(dtype_)),
                            .num_experts = options_.num_experts,
                            .num_experts_per_tok = options_.num_experts_per_tok};
    const double bytes = row.dispatch_bytes + row.combine_bytes, rate = bytes / row.us / 1e3;
    nlohmann::ordered_json line{{"exchange", name_},
                                {"device", device_},
                                {"date", date_},
                                {"ranks", ranks_},
                                {"ranks_share_a_gpu", shares_gpu_},
                                {"hidden", load.hidden_size},
                                {"element_bytes", load.element_bytes},
                                {"num_experts", load.num_experts},
                                {"num_experts_per_tok", load.num_experts_per_tok},
                                {"tokens", row.tokens},
                                {"us", row.us},
                                {"graph", row.graph},
                                {"dispatch_bytes", row.dispatch_bytes},
                                {"combine_bytes", row.combine_bytes},
                                {"gb_s", rate},
                                {"all_gather_reduce_scatter_us", row.all_gather_reduce_scatter_us}};
    fmt::print("{:>8} {:>10.1f} {:>11.3f} {:>9.2f}", row.tokens, row.us, bytes / 1e6, rate);
    const auto model = [&](const char* key, const ExchangeCost& cost) {
      for (const double link : options_.links) {
        const double us = cost.seconds(link * 1e9) * 1e6;
        line[key][fmt::format("{:g}", link)] = us;
        fmt::print("{:>16.1f}", us);
      }
    };
    model("model_us_at_gb_s", cost_once_a_rank(load));
    fmt::print("{:>10.1f}", row.all_gather_reduce_scatter_us);
    model("all_gather_model_us_at_gb_s", cost_all_gather(load));
    fmt::print("{}\n", row.graph ? "" : "  (not recorded in a graph)");
    std::fflush(stdout);
    if (file_.is_open()) file_ << line.dump() << std::endl;
  }

 private:
  const Options& options_;
  int ranks_;
  DType dtype_;
  bool shares_gpu_;
  std::string name_, device_, date_;
  std::ofstream file_;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (const int code = parse(argc, argv, options); code >= 0) return code;
  try {
    const MpiEnv env(&argc, &argv);
    options.device = resolve_device(options.device);
    Bench bench(env, options);
    bench.check();
    std::optional<Printer> printer;
    const bool shares_gpu = bench.shares_gpu();
    if (env.rank() == 0)
      printer.emplace(options, bench, env.size(), resolve_dtype(options.device, {}, DType::bfloat16),
                      shares_gpu);
    for (const int32_t tokens : options.tokens) {
      const Row row = bench.measure(tokens);
      if (printer) printer->print(row);
    }
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "exchange_bench: {}\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
    return 1;
  }
}
