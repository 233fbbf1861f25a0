#include "model/weight_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "moerun/error.h"

namespace moerun {

namespace {

void expect_attention(const ModelConfig& config, const std::string& prefix,
                      std::vector<ExpectedTensor>& out) {
  const int64_t q = config.num_attention_heads * config.head_dim;
  const int64_t kv = config.num_key_value_heads * config.head_dim;
  for (const auto& [name, rows, cols] :
       {ExpectedTensor{"q_proj", q, config.hidden_size}, ExpectedTensor{"k_proj", kv, config.hidden_size},
        ExpectedTensor{"v_proj", kv, config.hidden_size}, ExpectedTensor{"o_proj", config.hidden_size, q}}) {
    out.push_back({fmt::format("{}.self_attn.{}.weight", prefix, name), rows, cols});
    if (config.attention_bias) out.push_back({fmt::format("{}.self_attn.{}.bias", prefix, name), 0, rows});
  }
  out.push_back({prefix + ".self_attn.q_norm.weight", 0, config.head_dim});
  out.push_back({prefix + ".self_attn.k_norm.weight", 0, config.head_dim});
}

void expect_mlp(const std::string& prefix, int64_t hidden, int64_t width, std::vector<ExpectedTensor>& out) {
  out.push_back({prefix + ".gate_proj.weight", width, hidden});
  out.push_back({prefix + ".up_proj.weight", width, hidden});
  out.push_back({prefix + ".down_proj.weight", hidden, width});
}

std::vector<int64_t> shape_of(const ExpectedTensor& tensor) {
  return tensor.rows == 0 ? std::vector{tensor.cols} : std::vector{tensor.rows, tensor.cols};
}

}  // namespace

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  std::vector<ExpectedTensor> out;
  out.push_back({"model.embed_tokens.weight", config.vocab_size, config.hidden_size});
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}", layer);
    out.push_back({prefix + ".input_layernorm.weight", 0, config.hidden_size});
    expect_attention(config, prefix, out);
    out.push_back({prefix + ".post_attention_layernorm.weight", 0, config.hidden_size});
    if (!config.is_sparse(layer)) {
      expect_mlp(prefix + ".mlp", config.hidden_size, config.intermediate_size, out);
      continue;
    }
    out.push_back({prefix + ".mlp.gate.weight", config.num_experts, config.hidden_size});
    for (int64_t expert = 0; expert < config.num_experts; ++expert)
      expect_mlp(fmt::format("{}.mlp.experts.{}", prefix, expert), config.hidden_size,
                 config.moe_intermediate_size, out);
  }
  out.push_back({"model.norm.weight", 0, config.hidden_size});
  if (!config.tie_word_embeddings) out.push_back({"lm_head.weight", config.vocab_size, config.hidden_size});
  return out;
}

void check_tensors(const ModelConfig& config, const Checkpoint& checkpoint) {
  constexpr size_t kMost = 20;
  std::vector<std::string> faults;
  std::set<std::string> known;
  // A tied checkpoint may carry the LM head a second time.
  if (config.tie_word_embeddings) known.insert("lm_head.weight");
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    known.insert(tensor.name);
    const StoredTensor* const stored = checkpoint.find(tensor.name);
    if (!stored)
      faults.push_back(fmt::format("tensor {} is missing from the checkpoint", tensor.name));
    else if (stored->shape != shape_of(tensor))
      faults.push_back(fmt::format("{}: tensor {} has shape [{}] and config.json asks for [{}]", stored->file,
                                   tensor.name, fmt::join(stored->shape, ", "),
                                   fmt::join(shape_of(tensor), ", ")));
  }
  for (const auto& [name, stored] : checkpoint.tensors())
    if (!known.contains(name) && !name.ends_with(".rotary_emb.inv_freq"))
      faults.push_back(fmt::format("{}: tensor {} is not one that config.json asks for", stored.file, name));
  if (faults.empty()) return;
  const size_t more = faults.size() > kMost ? faults.size() - kMost : 0;
  faults.resize(faults.size() - more);
  if (more > 0) faults.push_back(fmt::format("… and {} more tensors", more));
  throw BadInput(fmt::format("{}", fmt::join(faults, "\n")));
}

HostMatrix CheckpointWeights::get(const std::string& name, int64_t rows, int64_t cols) const {
  const StoredTensor* const stored = checkpoint_.find(name);
  if (!stored) throw Error(fmt::format("tensor {} is missing from the checkpoint", name));
  return {.data = stored->data, .dtype = stored->dtype, .rows = rows, .cols = cols, .row_stride = cols};
}

HostMatrix DummyWeightSource::get(const std::string& name, int64_t rows, int64_t cols) const {
  constexpr float kScale = 0.02F * 1.7320508F;
  uint64_t key = 0xcbf29ce484222325u;  // FNV-1a of the name
  for (const char c : name) key = (key ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return {.rows = rows,
          .cols = cols,
          .row_stride = cols,
          .dummy = {.key = key, .scale = kScale, .offset = name.ends_with("norm.weight") ? 1.0F : 0.0F}};
}

HostMatrix part_of(const HostMatrix& whole, int64_t row0, int64_t row1, int64_t col0, int64_t col1) {
  HostMatrix part = whole;
  const int64_t first = row0 * whole.row_stride + col0;
  if (whole.data)
    part.data = static_cast<const char*>(whole.data) + static_cast<size_t>(first) * size_of(whole.dtype);
  else
    part.dummy.first += first;
  part.rows = row1 - row0;
  part.cols = col1 - col0;
  return part;
}

}  // namespace moerun
