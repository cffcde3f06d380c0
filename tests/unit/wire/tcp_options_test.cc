#include "wire/tcp_options.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/packet_builder.h"
#include "wire/tcp_segment.h"

namespace sluice::wire {
namespace {

using test::Bytes;

TcpOptions All() {
  TcpOptions o;
  o.mss = 1460;
  o.sack_permitted = true;
  o.has_timestamps = true;
  o.ts_value = 0x01020304;
  o.ts_echo_reply = 0x05060708;
  o.has_window_scale = true;
  o.window_scale = 7;
  return o;
}

TEST(TcpSeq, ComparesOnTheCircle) {
  EXPECT_TRUE(TcpSeq(0xffffffff).Before(TcpSeq(0)));
  EXPECT_TRUE(TcpSeq(5).After(TcpSeq(0xfffffff0)));
  EXPECT_TRUE(TcpSeq(7).AtOrBefore(TcpSeq(7)));
  EXPECT_EQ(TcpSeq(4) - TcpSeq(0xfffffffe), 6u);
  EXPECT_EQ(Later(TcpSeq(0xfffffffe), TcpSeq(1)), TcpSeq(1));
}

// The order on the wire that Linux uses in a SYN.
TEST(TcpOptions, SynHasTheOrderOfLinux) {
  Bytes out(40);
  ASSERT_EQ(EmitTcpOptions(out, All()), 20u);
  out.resize(20);
  EXPECT_EQ(test::ToHex(out), test::ToHex(test::FromHex(
      "02 04 05 b4  04 02 08 0a 01 02 03 04 05 06 07 08  01 03 03 07")));
}

TEST(TcpOptions, SackPermittedAloneIsPadded) {
  TcpOptions o;
  o.sack_permitted = true;
  Bytes out(4);
  ASSERT_EQ(EmitTcpOptions(out, o), 4u);
  EXPECT_EQ(out, test::FromHex("01 01 04 02"));
}

TEST(TcpOptions, WhatIsWrittenIsRead) {
  TcpOptions o = All();
  Bytes out(TcpOptionsLength(o));
  EmitTcpOptions(out, o);
  const TcpOptions back = ParseTcpOptions(out, true);
  EXPECT_EQ(back.mss, 1460);
  EXPECT_TRUE(back.sack_permitted);
  EXPECT_TRUE(back.has_window_scale);
  EXPECT_EQ(back.window_scale, 7);
  EXPECT_EQ(back.ts_value, o.ts_value);
  EXPECT_EQ(back.ts_echo_reply, o.ts_echo_reply);

  TcpOptions sack;
  sack.has_timestamps = true;
  sack.sack_count = 3;
  for (uint32_t i = 0; i < 3; ++i) sack.sack[i] = {TcpSeq(i * 10), TcpSeq(i * 10 + 5)};
  Bytes blocks(TcpOptionsLength(sack));
  EXPECT_EQ(EmitTcpOptions(blocks, sack), 40u);
  const TcpOptions read = ParseTcpOptions(blocks, false);
  ASSERT_EQ(read.sack_count, 3);
  EXPECT_EQ(read.sack[2], sack.sack[2]);
}

// RFC 9293 section 3.7.1, RFC 7323 section 2.2: these options may only come in a SYN.
TEST(TcpOptions, OptionsOfTheSynAreIgnoredElsewhere) {
  Bytes out(20);
  EmitTcpOptions(out, All());
  const TcpOptions o = ParseTcpOptions(out, false);
  EXPECT_EQ(o.mss, 0);
  EXPECT_FALSE(o.has_window_scale);
  EXPECT_FALSE(o.sack_permitted);
  EXPECT_TRUE(o.has_timestamps);
}

// RFC 7323 section 2.3: a shift above 14 is taken as 14.
TEST(TcpOptions, WindowScaleAbove14Is14) {
  EXPECT_EQ(ParseTcpOptions(test::FromHex("03 03 0f 00"), true).window_scale, 14);
}

// RFC 9293 section 3.1 (MUST-6): an option that is not known is skipped by its length.
TEST(TcpOptions, UnknownOptionsAreSkipped) {
  const TcpOptions o = ParseTcpOptions(test::FromHex("fe 06 aa bb cc dd 02 04 02 18 00 00"), true);
  EXPECT_EQ(o.mss, 536);
  EXPECT_FALSE(o.malformed);
}

// RFC 9293 section 3.1 (MUST-7): an illegal option length must not do harm.
TEST(TcpOptions, IllegalLengthsEndTheList) {
  for (const char* text : {"02 00 05 b4", "02 01 05 b4", "08 0a 01 02", "05 22 00 00", "02"}) {
    EXPECT_TRUE(ParseTcpOptions(test::FromHex(text), true).malformed) << text;
  }
  // Lengths that are possible but not this kind's.
  const TcpOptions o = ParseTcpOptions(test::FromHex("02 03 05  05 05 01 02 03  04 03 00"), true);
  EXPECT_EQ(o.mss, 0);
  EXPECT_EQ(o.sack_count, 0);
  EXPECT_FALSE(o.sack_permitted);
}

TEST(TcpSegment, HeaderAndChecksumAgreeWithTheBuilder) {
  const Bytes wanted = test::PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Tcp(1234, 80, 0x18)
      .Sequence(100, 200).Window(512).Payload("hello!!").Build();
  Bytes segment(27);
  const TcpFields f{1234, 80, TcpSeq(100), TcpSeq(200), 0x18, 512};
  ASSERT_EQ(EmitTcpHeader(segment, f, {}), 20u);
  std::copy_n("hello!!", 7, segment.begin() + 20);
  FillTcpChecksum(segment, PseudoHeaderSum(Ipv4(10, 0, 0, 1), Ipv4(10, 0, 0, 2), 6, 27));
  EXPECT_EQ(test::ToHex(segment), test::ToHex(std::span(wanted).subspan(20)));
}

}  // namespace
}  // namespace sluice::wire
