#include "job/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string_view>

#include "base/shortened.h"
#include "job/fields.h"

namespace moerun {

namespace {

using Kind = YamlNode::Kind;

size_t count_nodes(const YamlNode& node) {
  size_t count = 1;
  for (const YamlNode& item : node.items) count += count_nodes(item);
  for (const auto& [key, value] : node.entries) count += count_nodes(key) + count_nodes(value);
  return count;
}

/// Builds the tree as the parser goes, and ends it at a limit: yaml-cpp's own tree has none, and its loop
/// over documents never ends where a text begins with a comma.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const std::string& text) : text_(text) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ == 1) return;
    const std::string_view rest =
        std::string_view(text_).substr(std::min(text_.size(), static_cast<size_t>(std::max(mark.pos, 0))));
    if (rest.starts_with("---")) throw YamlFault{mark, "a second YAML document begins here; a job is one"};
    throw YamlFault{mark, fmt::format("not YAML: a value cannot go on with {}; put it in quotes",
                                      shortened(std::string(rest.substr(0, rest.find('\n'))), 20))};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add({.kind = Kind::null, .mark = mark}, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchored_.find(anchor);
    if (found == anchored_.end()) throw YamlFault{mark, "an alias within what it names"};
    nodes_ += count_nodes(found->second) - 1;
    YamlNode copy = found->second;
    copy.mark = mark;
    add(std::move(copy), 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    add({.kind = Kind::scalar, .mark = mark, .tag = tag, .scalar = value}, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value style) override {
    static_cast<void>(style);
    open({.kind = Kind::list, .mark = mark, .tag = tag}, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value style) override {
    static_cast<void>(style);
    open({.kind = Kind::map, .mark = mark, .tag = tag}, anchor);
  }
  void OnMapEnd() override { close(); }

  YamlNode take() { return std::move(root_); }

 private:
  struct Open {
    YamlNode node;
    YAML::anchor_t anchor = 0;
    bool has_key = false;  // of a mapping: its last entry waits for the value
  };

  void count(const YAML::Mark& mark) {
    if (++nodes_ > kMostYamlNodes)
      throw YamlFault{mark, fmt::format("more than {} values, aliases counted", kMostYamlNodes)};
  }
  void open(YamlNode node, YAML::anchor_t anchor) {
    if (static_cast<int>(open_.size()) >= kMostYamlDepth)
      throw YamlFault{node.mark,
                      fmt::format("more than {} lists and mappings in one another", kMostYamlDepth)};
    count(node.mark);
    open_.push_back({.node = std::move(node), .anchor = anchor});
  }
  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    place(std::move(done.node), done.anchor);
  }
  void add(YamlNode node, YAML::anchor_t anchor) {
    count(node.mark);
    place(std::move(node), anchor);
  }
  void place(YamlNode node, YAML::anchor_t anchor) {
    if (anchor != 0) anchored_.insert_or_assign(anchor, node);
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& top = open_.back();
    if (top.node.is(Kind::list)) {
      top.node.items.push_back(std::move(node));
    } else if (top.has_key) {
      top.node.entries.back().value = std::move(node);
      top.has_key = false;
    } else {
      top.node.entries.push_back({std::move(node), {}});
      top.has_key = true;
    }
  }

  const std::string& text_;
  YamlNode root_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, YamlNode> anchored_;
  size_t nodes_ = 0;
  int documents_ = 0;
};

}  // namespace

YamlNode read_yaml(const std::string& text) {
  if (text.size() > kMostYamlBytes)
    throw YamlFault{YAML::Mark(), fmt::format("more than {} bytes, which no job needs", kMostYamlBytes)};
  Builder builder(text);
  try {
    std::istringstream in(text);
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    throw YamlFault{error.mark, "not YAML: " + error.msg};
  }
  return builder.take();
}

}  // namespace moerun
