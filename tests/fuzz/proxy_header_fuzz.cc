// Headers of the PROXY protocol: any bytes are refused, incomplete, or a header, which its own length
// decides; what was read and is written anew reads the same.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "services/proxy_protocol.h"
#include "support/fuzz_input.h"

using namespace sluice::services;
using sluice::test::Require;
using Outcome = ProxyHeader::Outcome;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> all(data, size);
  const ProxyHeader header = ParseProxyHeader(all);
  switch (header.outcome) {
    case Outcome::kInvalid:
      return 0;
    case Outcome::kIncomplete:
      return 0;
    case Outcome::kAddresses:
    case Outcome::kLocal:
      break;
  }
  Require(header.length >= kProxyHeaderFixed && header.length <= size, "a wrong length");
  for (size_t n = 0; n < header.length; ++n) {
    Require(ParseProxyHeader(all.first(n)).outcome == Outcome::kIncomplete, "complete too early");
  }
  Require(ParseProxyHeader(all.first(header.length)).outcome == header.outcome,
        "what follows the header matters");
  if (header.outcome == Outcome::kLocal) return 0;
  std::array<uint8_t, kProxyHeaderMax> out;
  const size_t n = WriteProxyHeader(header.client, header.listener, out);
  const ProxyHeader again = ParseProxyHeader(std::span(out).first(n));
  Require(again.outcome == Outcome::kAddresses && again.client == header.client &&
            again.listener == header.listener && again.length == n,
        "what is written reads differently");
  return 0;
}
