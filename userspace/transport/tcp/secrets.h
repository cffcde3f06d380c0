// What strangers must not guess: initial sequence numbers, timestamp offsets, SYN cookies, ports.
//
// All are keyed hashes of the addresses and ports (siphash.h) under a key that the host draws at
// random. Time is passed in. No state but the key; any thread.
#ifndef SLUICE_TRANSPORT_TCP_SECRETS_H_
#define SLUICE_TRANSPORT_TCP_SECRETS_H_

#include <cstdint>
#include <optional>

#include "base/time.h"
#include "transport/common/endpoint.h"
#include "transport/common/siphash.h"
#include "wire/tcp_options.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

class TcpSecrets {
 public:
  explicit TcpSecrets(const HashKey& key) : key_(key) {}

  // RFC 6528 section 3: M + F(localip, localport, remoteip, remoteport, secretkey), where M is a
  // timer that counts every 64 ns (RFC 9293 wants 4 microseconds or less).
  wire::TcpSeq InitialSequence(const Tuple& t, Nanos now) const {
    return wire::TcpSeq(static_cast<uint32_t>(Hash(t, kIsn)) +
                        static_cast<uint32_t>(now.count() / 64));
  }

  // RFC 7323 section 5.4: a random offset per pair of hosts, so that timestamps do not tell for how
  // long the machine has been up, and still grow from one connection of a pair to the next (which
  // RFC 6191 uses).
  uint32_t TimestampOffset(const Tuple& t) const {
    return static_cast<uint32_t>(SecretHash(key_, {kTimestamp, t.local.address.bits.hi,
                                                   t.local.address.bits.lo,
                                                   t.remote.address.bits.hi,
                                                   t.remote.address.bits.lo}));
  }

  // RFC 6056 section 3.3.3 (algorithm 3): where in the range the search for a port begins; the
  // caller adds a counter per try.
  uint32_t PortOffset(const IpAddress& local, const Endpoint& remote) const {
    return static_cast<uint32_t>(SecretHash(
        key_, {kPort, local.bits.hi, local.bits.lo, remote.address.bits.hi,
               remote.address.bits.lo, remote.port}));
  }

  // SYN cookies (RFC 4987 section 3.6): what must be remembered of a SYN, in the ISN of the answer.
  // The MSS is one of a few; with timestamps on, window scale, SACK and ECN travel in TSval's low
  // bits (see CookieTimestamp).
  wire::TcpSeq MakeCookie(const Tuple& t, wire::TcpSeq irs, uint16_t mss, Nanos now) const;
  // The MSS, if `cookie` is one that was made for this connection within the last two minutes.
  std::optional<uint16_t> CheckCookie(const Tuple& t, wire::TcpSeq irs, wire::TcpSeq cookie,
                                      Nanos now) const;

  struct CookieOptions {
    bool has_window_scale = false;
    uint8_t window_scale = 0;
    bool sack_permitted = false;
    bool ecn = false;
  };
  // A TSval not after `ts_value` whose low bits hold the options, and back.
  static uint32_t CookieTimestamp(uint32_t ts_value, const CookieOptions& options);
  static CookieOptions OptionsOfTimestamp(uint32_t ts_echo_reply);

 private:
  enum Purpose : uint64_t { kIsn = 1, kTimestamp, kPort, kCookie };

  uint64_t Hash(const Tuple& t, uint64_t purpose, uint64_t more = 0) const {
    return SecretHash(key_, {purpose, t.local.address.bits.hi, t.local.address.bits.lo,
                             t.remote.address.bits.hi, t.remote.address.bits.lo, t.ports(), more});
  }
  uint32_t CookieMac(const Tuple& t, wire::TcpSeq irs, uint64_t minute, uint32_t mss_index) const {
    return static_cast<uint32_t>(
        Hash(t, kCookie, uint64_t{irs.value()} << 32 | minute << 3 | mss_index));
  }

  const HashKey key_;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_SECRETS_H_
