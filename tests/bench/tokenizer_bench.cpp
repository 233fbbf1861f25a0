/// Prints how fast a tokenizer encodes and decodes, on one core: tokenizer_bench MODEL_DIR [FILE...]. Without
/// files, on made-up text of several kinds. A figure is the best of three fresh tokenizers, so that no cache
/// is warm.
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace {

using moerun::Tokenizer;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// About `bytes` of words drawn from `words` (half of them as they are, half with a random ending, so that
/// pieces are not all alike), with a line's end now and then.
std::string made_up(const std::vector<std::string>& words, const std::string& separator, size_t bytes) {
  std::string text;
  uint64_t x = 20261123;
  const auto draw = [&](uint64_t n) {
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    return (x >> 33) % n;
  };
  while (text.size() < bytes) {
    text += words[draw(words.size())];
    if (draw(2) == 0) text += static_cast<char>('a' + draw(26));
    if (draw(4) == 0) text += fmt::format("{}", draw(10000));
    text += draw(12) == 0 ? ".\n" : separator;
  }
  return text;
}

std::string repeated(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

void measure(const std::string& model_dir, const std::string& name, const std::string& text) {
  double encode = 1e9, decode = 1e9;
  size_t num_ids = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    Tokenizer tokenizer = Tokenizer::load(model_dir);
    auto start = std::chrono::steady_clock::now();
    const std::vector<int32_t> ids = tokenizer.encode(text);
    encode = std::min(encode, seconds_since(start));
    start = std::chrono::steady_clock::now();
    const std::string back = tokenizer.decode(ids, false);
    decode = std::min(decode, seconds_since(start));
    num_ids = ids.size();
  }
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  fmt::print("{:<28} {:>6.2f} MB {:>8} tokens   encode {:>6.1f} MB/s   decode {:>6.1f} MB/s\n", name,
             megabytes, num_ids, megabytes / encode, megabytes / decode);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: tokenizer_bench MODEL_DIR [FILE...]\n");
    return 2;
  }
  const std::string model_dir = argv[1];
  const auto start = std::chrono::steady_clock::now();
  Tokenizer::load(model_dir);
  fmt::print("load {:.3f} s\n", seconds_since(start));
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    measure(model_dir, argv[i], {std::istreambuf_iterator<char>(file), {}});
  }
  if (argc > 2) return 0;
  const std::vector<std::string> english = {
      "the",          "whale", "internationalization", "of",   "Reflection", "and", "don't", "token",
      "unbelievable", "a",     "\"quoted\"",           "sea,", "(paren",     "HTTP"};
  const std::vector<std::string> chinese = {"中文",         "分词测试", "你好，世界", "机器学习模型",
                                            "今天天气很好", "的",       "是"};
  std::vector<std::string> mixed = english;
  mixed.insert(mixed.end(), chinese.begin(), chinese.end());
  mixed.insert(mixed.end(), {"Привет", "한국어", "naïve", "🙂", "e\u0301te\u0301", "int x = foo(bar);",
                             "https://a.b/c?d=%20"});
  measure(model_dir, "English words", made_up(english, " ", 8'000'000));
  measure(model_dir, "Chinese without spaces", made_up(chinese, "", 8'000'000));
  measure(model_dir, "mixed scripts and code", made_up(mixed, " ", 8'000'000));
  measure(model_dir, "1 MB of one letter", repeated("x", 1'000'000));
  measure(model_dir, "1 MB of spaces", repeated(" ", 1'000'000));
  measure(model_dir, "1 MB of combining marks", repeated("\u0345\u0301", 1'000'000));
}
