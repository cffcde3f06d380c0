#include "services/proxy_protocol.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/packet_builder.h"

namespace sluice::services {
namespace {

using Outcome = ProxyHeader::Outcome;
using test::FromHex;
using test::ToHex;
using transport::Endpoint;

const Endpoint kClient4{*ParseIpAddress("192.0.2.7"), 50'000};
const Endpoint kListener4{*ParseIpAddress("198.51.100.1"), 443};
const Endpoint kClient6{*ParseIpAddress("2001:db8::7"), 50'001};
const Endpoint kListener6{*ParseIpAddress("2001:db8:1::1"), 80};

// Section 2.2: twelve bytes of signature, version and command, family and protocol, length, addresses.
constexpr char kHeader4[] =
    "0d0a0d0a000d0a515549540a 21 11 000c c0000207 c6336401 c350 01bb";

std::vector<uint8_t> Written(const Endpoint& client, const Endpoint& listener) {
  std::array<uint8_t, kProxyHeaderMax> out;
  const size_t n = WriteProxyHeader(client, listener, out);
  return {out.begin(), out.begin() + static_cast<ptrdiff_t>(n)};
}

TEST(ProxyProtocolTest, WritesVersion2) {
  EXPECT_EQ(ToHex(Written(kClient4, kListener4)), ToHex(FromHex(kHeader4)));
  const auto six = Written(kClient6, kListener6);
  EXPECT_EQ(six.size(), kProxyHeaderMax);
  EXPECT_EQ(six[13], 0x21);
  std::array<uint8_t, kProxyHeaderMax> out;
  EXPECT_EQ(WriteLocalProxyHeader(out), kProxyHeaderFixed);
  EXPECT_EQ(ToHex(std::span(out).first(16)), ToHex(FromHex("0d0a0d0a000d0a515549540a 20 00 0000")));
}

TEST(ProxyProtocolTest, ReadsWhatItWrites) {
  for (const auto& [client, listener] : {std::pair{kClient4, kListener4},
                                         std::pair{kClient6, kListener6}}) {
    auto bytes = Written(client, listener);
    const size_t length = bytes.size();
    bytes.push_back('x');
    const ProxyHeader h = ParseProxyHeader(bytes);
    EXPECT_EQ(h.outcome, Outcome::kAddresses);
    EXPECT_EQ(h.client, client);
    EXPECT_EQ(h.listener, listener);
    EXPECT_EQ(h.length, length);
    for (size_t n = 0; n < length; ++n) {
      EXPECT_EQ(ParseProxyHeader(std::span(bytes).first(n)).outcome, Outcome::kIncomplete) << n;
    }
  }
}

TEST(ProxyProtocolTest, ReadsWhatOthersWrite) {
  // Attached values (section 2.2.3) are skipped.
  auto with_tlv = FromHex("0d0a0d0a000d0a515549540a 21 11 0010 c0000207 c6336401 c350 01bb 04000100");
  const ProxyHeader h = ParseProxyHeader(with_tlv);
  EXPECT_EQ(h.outcome, Outcome::kAddresses);
  EXPECT_EQ(h.length, with_tlv.size());
  // UNSPEC, and UNIX, say nothing that we know.
  EXPECT_EQ(ParseProxyHeader(FromHex("0d0a0d0a000d0a515549540a 21 00 0000")).outcome,
            Outcome::kLocal);
  EXPECT_EQ(ParseProxyHeader(FromHex("0d0a0d0a000d0a515549540a 20 11 0000")).outcome,
            Outcome::kLocal);
}

TEST(ProxyProtocolTest, RefusesWhatIsNone) {
  const auto outcome = [](const char* hex) { return ParseProxyHeader(FromHex(hex)).outcome; };
  EXPECT_EQ(outcome("47"), Outcome::kInvalid);                                    // GET
  EXPECT_EQ(outcome("50524f5859205443503420"), Outcome::kInvalid);                // version 1
  EXPECT_EQ(outcome("0d0a0d0a000d0a515549540a 11 11 0000"), Outcome::kInvalid);  // version
  EXPECT_EQ(outcome("0d0a0d0a000d0a515549540a 22 11 0000"), Outcome::kInvalid);  // command
  EXPECT_EQ(outcome("0d0a0d0a000d0a515549540a 21 11 000b c0000207c6336401c35001"),
            Outcome::kInvalid);                                                   // too short
  EXPECT_EQ(outcome("0d0a0d0a000d0a515549540a 21 21 000c c0000207c6336401c35001bb"),
            Outcome::kInvalid);
}

}  // namespace
}  // namespace sluice::services
