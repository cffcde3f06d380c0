// HTTP requests: any stream gives the same requests and the same end however it is cut into pieces, and
// nothing is taken that was not there.
#include <http_parser.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "services/http_request.h"
#include "support/fuzz_input.h"

using sluice::services::HttpRequestReader;
using sluice::test::Require;
using Outcome = HttpRequestReader::Outcome;

namespace {

// The requests of a stream, one a line, and how it ends.
std::string Read(std::span<const uint8_t> stream, size_t step) {
  HttpRequestReader reader;
  std::string out;
  while (!stream.empty()) {
    const auto piece = stream.first(std::min(step, stream.size()));
    const auto result = reader.Feed(piece);
    Require(result.taken <= piece.size(), "more was taken than there was");
    switch (result.outcome) {
      case Outcome::kBad:
        Require(reader.error_status() >= 400 && reader.error_status() < 600, "no status");
        return out + "bad";
      case Outcome::kMore:
        Require(result.taken == piece.size(), "not all was taken");
        break;
      case Outcome::kComplete:
        Require(result.taken > 0, "a request without a byte");
        Require(reader.path().size() <= HttpRequestReader::kMaxTarget, "a path too long");
        out += std::string(http_method_str(reader.method())) + " " + std::string(reader.path()) +
               (reader.keep_alive() ? " keep\n" : " close\n");
        break;
    }
    stream = stream.subspan(result.taken);
  }
  return out + (reader.in_request() ? "more" : "end");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t step = data[0] % 37 + 1;
  const std::span<const uint8_t> stream(data + 1, size - 1);
  const std::string whole = Read(stream, SIZE_MAX);
  const std::string cut = Read(stream, step);
  if (whole != cut) {
    std::fprintf(stderr, "whole:\n%s\nin pieces of %zu:\n%s\n", whole.c_str(), step, cut.c_str());
    std::abort();
  }
  return 0;
}
