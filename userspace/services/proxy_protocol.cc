#include "services/proxy_protocol.h"

#include <algorithm>

#include "base/byte_order.h"

namespace sluice::services {

namespace {

using transport::Endpoint;

constexpr std::array<uint8_t, 12> kSignature = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                                0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
constexpr uint8_t kVersion2 = 0x20;
constexpr uint8_t kCommandLocal = 0x0;
constexpr uint8_t kCommandProxy = 0x1;
constexpr uint8_t kTcp4 = 0x11;
constexpr uint8_t kTcp6 = 0x21;
constexpr size_t kLength4 = 12;
constexpr size_t kLength6 = 36;

void Begin(uint8_t* out, uint8_t command, uint8_t family, size_t length) {
  std::copy(kSignature.begin(), kSignature.end(), out);
  out[12] = kVersion2 | command;
  out[13] = family;
  StoreBe16(out + 14, static_cast<uint16_t>(length));
}

}  // namespace

size_t WriteProxyHeader(const Endpoint& client, const Endpoint& listener,
                        std::span<uint8_t, kProxyHeaderMax> out) {
  const bool v4 = client.address.is_v4();
  const size_t length = v4 ? kLength4 : kLength6;
  const size_t address = length / 2 - sizeof(uint16_t);
  Begin(out.data(), kCommandProxy, v4 ? kTcp4 : kTcp6, length);
  uint8_t* const body = out.data() + kProxyHeaderFixed;
  const auto put = [v4](const IpAddress& a, uint8_t* to) {
    v4 ? a.v4().ToWire(to) : a.v6().ToWire(to);
  };
  put(client.address, body);
  put(listener.address, body + address);
  StoreBe16(body + 2 * address, client.port);
  StoreBe16(body + 2 * address + sizeof(uint16_t), listener.port);
  return kProxyHeaderFixed + length;
}

size_t WriteLocalProxyHeader(std::span<uint8_t, kProxyHeaderMax> out) {
  Begin(out.data(), kCommandLocal, 0, 0);
  return kProxyHeaderFixed;
}

ProxyHeader ParseProxyHeader(std::span<const uint8_t> data) {
  using Outcome = ProxyHeader::Outcome;
  const size_t known = std::min(data.size(), kSignature.size());
  if (!std::equal(kSignature.begin(), kSignature.begin() + static_cast<ptrdiff_t>(known),
                  data.begin())) {
    return {Outcome::kInvalid};
  }
  if (data.size() < kProxyHeaderFixed) return {Outcome::kIncomplete};
  const uint8_t command = data[12] & 0x0f;
  if ((data[12] & 0xf0) != kVersion2 || command > kCommandProxy) return {Outcome::kInvalid};
  const size_t length = LoadBe16(&data[14]);
  ProxyHeader header{Outcome::kLocal};
  header.length = kProxyHeaderFixed + length;
  const bool v4 = command == kCommandProxy && data[13] == kTcp4;
  const bool v6 = command == kCommandProxy && data[13] == kTcp6;
  if ((v4 && length < kLength4) || (v6 && length < kLength6)) return {Outcome::kInvalid};
  if (data.size() < header.length) return {Outcome::kIncomplete};
  const uint8_t* const body = data.data() + kProxyHeaderFixed;
  if (v4) {
    header.outcome = Outcome::kAddresses;
    header.client = {Ipv4::FromWire(body), LoadBe16(body + 8)};
    header.listener = {Ipv4::FromWire(body + 4), LoadBe16(body + 10)};
  } else if (v6) {
    header.outcome = Outcome::kAddresses;
    header.client = {Ipv6::FromWire(body), LoadBe16(body + 32)};
    header.listener = {Ipv6::FromWire(body + 16), LoadBe16(body + 34)};
  }
  return header;
}

}  // namespace sluice::services
