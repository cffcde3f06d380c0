// Random fragments against a naive model, and the way back: what is cut again gives the same.
#include <algorithm>

#include "base/rng.h"
#include "unit/stages/defrag_fixture.h"
#include "wire/ipv4.h"

namespace sluice::stages {
namespace {

// One datagram, byte by byte: what stands where, and in which run it came.
class Model {
 public:
  enum class Answer { kHeld, kComplete, kRefused, kPasses, kInvalid, kOverlap };

  explicit Model(bool is_v4) : is_v4_(is_v4) {}

  Answer Add(size_t begin, Bytes bytes, bool more) {
    size_t end = begin + bytes.size();
    const Answer bad = is_v4_ ? Answer::kInvalid : Answer::kRefused;
    if (more && end % 8 != 0) {
      if (!is_v4_) return Answer::kPasses;
      end -= end % 8;
    }
    if (known_end_ && (more ? end > end_ : end != end_)) return bad;
    if (!more && end < end_) return bad;
    end_ = std::max(end_, end);
    if (!more) known_end_ = true;
    if (end <= begin) return bad;
    int there = 0;
    bool one_run = true;
    for (size_t i = begin; i < end; ++i) {
      if (run_[i] == 0) continue;
      ++there;
      one_run = one_run && run_[i] == run_[begin];
    }
    if (there == static_cast<int>(end - begin) && one_run) return Answer::kRefused;
    if (there > 0) return Answer::kOverlap;
    const bool continues = begin > 0 && begin == reached_ && run_[begin - 1] != 0;
    const int run = continues ? run_[begin - 1] : ++runs_;
    for (size_t i = begin; i < end; ++i) {
      run_[i] = run;
      bytes_[i] = bytes[i - begin];
    }
    reached_ = std::max(reached_, end);
    have_ += end - begin;
    return known_end_ && have_ == end_ ? Answer::kComplete : Answer::kHeld;
  }
  Bytes whole() const { return {bytes_.begin(), bytes_.begin() + static_cast<long>(end_)}; }

 private:
  static constexpr size_t kMost = 8192;
  bool is_v4_;
  bool known_end_ = false;
  size_t end_ = 0;
  size_t reached_ = 0;  // where the last byte is
  size_t have_ = 0;
  int runs_ = 0;
  std::vector<int> run_ = std::vector<int>(kMost);
  Bytes bytes_ = Bytes(kMost);
};

struct Piece {
  size_t begin;
  Bytes bytes;
  bool more;
};

Bytes RandomBytes(Rng& rng, size_t n) {
  Bytes bytes(n);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng.Next());
  return bytes;
}

// Cut in order, at multiples of 8.
std::vector<Piece> CutUp(Rng& rng, const Bytes& data, size_t least, size_t most) {
  std::vector<Piece> pieces;
  for (size_t at = 0; at < data.size();) {
    const size_t n = std::min((least + rng.Below(most - least + 1)) & ~size_t{7}, data.size() - at);
    pieces.push_back({at, Part(data, at, at + n), at + n < data.size()});
    at += n;
  }
  return pieces;
}

template <class T>
void Shuffle(Rng& rng, std::vector<T>& items) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.Below(i)]);
}

// Duplicates, overlaps, other ends: what an attacker or a broken path adds.
void Disturb(Rng& rng, const Bytes& data, std::vector<Piece>& pieces) {
  for (uint64_t n = rng.Below(4); n > 0; --n) {
    if (rng.Chance(1, 2)) {
      pieces.push_back(pieces[rng.Below(pieces.size())]);
      continue;
    }
    const size_t begin = rng.Below(data.size() / 8 + 4) * 8;
    const size_t size = rng.Chance(1, 8) ? rng.Below(20) : rng.Below(40) * 8;
    pieces.push_back({begin, RandomBytes(rng, size), rng.Chance(3, 4)});
  }
  if (rng.Chance(1, 5)) pieces.erase(pieces.begin() + static_cast<long>(rng.Below(pieces.size())));
}

Bytes FrameOf(const Piece& piece, bool is_v4, uint32_t id) {
  // Protocol 253 is for experiments: its header is one byte long to the check of first fragments.
  const auto offset = static_cast<uint16_t>(piece.begin);
  if (!is_v4) {
    return Host6().Fragment(offset, piece.more, id).Protocol(253).Payload(piece.bytes).Build();
  }
  PacketBuilder b = Host4().Id(static_cast<uint16_t>(id)).Protocol(253).FragmentOffset(offset);
  if (piece.more) b.MoreFragments();
  return b.Payload(piece.bytes).Build();
}

class DefragRandom : public DefragTest {
 protected:
  // Feeds one piece to both; true when the datagram has ended (whole or discarded).
  bool FeedBoth(Model& model, const Piece& piece, bool is_v4, uint32_t id, uint32_t segment) {
    const Bytes frame = FrameOf(piece, is_v4, id);
    const bool is_fragment = piece.more || piece.begin > 0 || !is_v4;
    if (!is_fragment || (!is_v4 && piece.begin == 0 && piece.bytes.empty())) return false;
    const Model::Answer expected = model.Add(piece.begin, piece.bytes, piece.more);
    const Result r = Feed(frame, kLan, segment);
    SCOPED_TRACE(testing::Message() << "piece at " << piece.begin << ", " << piece.bytes.size()
                                    << " bytes, more " << piece.more);
    switch (expected) {
      case Model::Answer::kHeld:
        EXPECT_EQ(r.verdict, Verdict::Held());
        return false;
      case Model::Answer::kRefused:
        EXPECT_EQ(r.verdict, Verdict::Drop(DropReason::kFragmentInvalid));
        return false;
      case Model::Answer::kInvalid:
        EXPECT_EQ(r.verdict, Verdict::Drop(DropReason::kFragmentInvalid));
        return true;
      case Model::Answer::kOverlap:
        EXPECT_EQ(r.verdict, Verdict::Drop(DropReason::kFragmentOverlap));
        return true;
      case Model::Answer::kPasses:
      case Model::Answer::kComplete:
        break;
    }
    EXPECT_TRUE(r.packet);
    if (!r.packet) return true;
    if (expected == Model::Answer::kPasses) {
      EXPECT_EQ(world.BytesOf(*r.packet), frame);
    } else {
      const uint32_t headers = 14 + (is_v4 ? 20 : 40);
      EXPECT_EQ(world.BytesOf(*r.packet, headers), model.whole());
    }
    End(*r.packet);
    return true;
  }
};

TEST_F(DefragRandom, AgainstTheModel) {
  Rng rng(1);
  uint32_t completed = 0;
  uint32_t discarded = 0;
  for (uint32_t id = 0; id < 4000; ++id) {
    const bool is_v4 = rng.Chance(1, 2);
    const Bytes data = RandomBytes(rng, 9 + rng.Below(3000));
    std::vector<Piece> pieces =
        CutUp(rng, data, 8, rng.Chance(1, 3) ? 64 : 1400);
    const uint32_t segment = rng.Chance(1, 3) ? static_cast<uint32_t>(64 + rng.Below(400)) : 0;
    if (rng.Chance(1, 2)) Disturb(rng, data, pieces);
    if (rng.Chance(2, 3)) Shuffle(rng, pieces);
    SCOPED_TRACE(testing::Message() << "datagram " << id << ", IPv" << (is_v4 ? 4 : 6));
    Model model(is_v4);
    for (const Piece& piece : pieces) {
      if (FeedBoth(model, piece, is_v4, id, segment)) {
        Lost().empty() ? ++completed : ++discarded;
        model = Model(is_v4);  // what follows begins another
      }
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(completed, 2000u);
  EXPECT_GT(discarded, 300u);
}

// Many at once, with losses and time passing: every fragment and every frame has an end.
TEST_F(DefragRandom, Interleaved) {
  Rng rng(2);
  uint32_t wholes = 0;
  std::vector<std::pair<Bytes, IfaceSlot>> frames;
  for (uint32_t round = 0; round < 40; ++round) {
    for (uint32_t i = 0; i < 20; ++i) {
      const bool is_v4 = rng.Chance(1, 2);
      for (const Piece& piece : CutUp(rng, RandomBytes(rng, 2000), 256, 1400)) {
        if (rng.Chance(1, 20)) continue;
        frames.emplace_back(FrameOf(piece, is_v4, round * 20 + i), kLan);
      }
    }
    Shuffle(rng, frames);
    for (const auto& [frame, in] : frames) {
      const Result r = Feed(frame, in);
      if (r.packet) {
        ++wholes;
        End(*r.packet);
      }
      const uint64_t held = counters->of(kLan).held_packets.Read();
      ASSERT_EQ(held, received[0] - ended[0] - counters->of(kLan).merged_packets.Read());
      ASSERT_EQ(defrag->frames(), held);
      ASSERT_EQ(world.pool.size() + held, test::RouterWorld::kFrames);
    }
    frames.clear();
    now += Seconds(static_cast<int64_t>(rng.Below(20)));
    defrag->Advance(now);
    TakeLost();
  }
  EXPECT_GT(wholes, 500u);
}

class RoundTrip : public DefragRandom {
 protected:
  // The frames again as they came, by the fragmenter and by Refragment.
  void ExpectTheSame(const Packet& whole, const std::vector<Bytes>& frames, bool is_v4) {
    std::vector<Bytes> from_l3;
    for (const Bytes& frame : frames) from_l3.emplace_back(frame.begin() + 14, frame.end());
    EXPECT_EQ(is_v4 ? Pieces<Ipv4Fragmenter>(whole, 1500) : Pieces<Ipv6Fragmenter>(whole, 1500),
              from_l3);
    std::vector<Bytes> again;
    EXPECT_TRUE(Refragment(whole, world.outbox, [&](Packet& piece, bool first) {
      EXPECT_EQ(first, again.empty());
      EXPECT_EQ(piece.in, kLan);
      again.push_back(world.BytesOf(piece));
      world.Free(piece);
    }));
    EXPECT_EQ(again, frames);
  }
  // Smaller pieces, put together once more.
  void ExpectTheSameWhole(const Packet& whole, uint32_t mtu, bool is_v4) {
    const auto pieces =
        is_v4 ? Pieces<Ipv4Fragmenter>(whole, mtu) : Pieces<Ipv6Fragmenter>(whole, mtu);
    Bytes link(whole.data, whole.data + 14);
    std::optional<Packet> again;
    for (const Bytes& piece : pieces) {
      EXPECT_LE(piece.size(), std::max(mtu, is_v4 ? 68u : 1280u));
      Bytes frame = link;
      frame.insert(frame.end(), piece.begin(), piece.end());
      const Result r = Feed(frame);
      if (r.packet) again = r.packet;
    }
    ASSERT_TRUE(again) << "of " << pieces.size() << " pieces";
    EXPECT_EQ(world.BytesOf(*again), world.BytesOf(whole));
    End(*again);
  }
};

TEST_F(RoundTrip, AsTheyCame) {
  Rng rng(3);
  for (uint32_t id = 0; id < 1000; ++id) {
    const bool is_v4 = rng.Chance(1, 2);
    const Bytes data = RandomBytes(rng, 2000 + rng.Below(4000));
    const auto most = rng.Chance(1, 4) ? 200 : 1400;
    std::vector<Bytes> frames;
    for (const Piece& piece : CutUp(rng, data, 64, static_cast<size_t>(most))) {
      frames.push_back(FrameOf(piece, is_v4, id));
    }
    if (frames.size() > Datagram::kMaxFragments) continue;
    std::vector<Bytes> shuffled = frames;
    Shuffle(rng, shuffled);
    SCOPED_TRACE(testing::Message() << "datagram " << id << ", IPv" << (is_v4 ? 4 : 6));
    std::optional<Packet> whole;
    for (const Bytes& frame : shuffled) {
      const Result r = Feed(frame, kLan, rng.Chance(1, 4) ? 300 : 0);
      if (r.packet) whole = r.packet;
    }
    ASSERT_TRUE(whole);
    ExpectTheSame(*whole, frames, is_v4);
    ExpectTheSameWhole(*whole, is_v4 ? static_cast<uint32_t>(60 + rng.Below(1400)) : 1280, is_v4);
    End(*whole);
    if (HasFailure()) return;
  }
}

// Also where the beginning came in crumbs, which the whole has in one piece.
TEST_F(RoundTrip, Crumbs) {
  Rng rng(4);
  for (uint32_t id = 0; id < 300; ++id) {
    const bool is_v4 = rng.Chance(1, 2);
    std::vector<Bytes> frames;
    for (const Piece& piece : CutUp(rng, RandomBytes(rng, 40 + rng.Below(700)), 8, 40)) {
      frames.push_back(FrameOf(piece, is_v4, id));
    }
    if (frames.size() == 1) continue;
    std::vector<Bytes> shuffled = frames;
    Shuffle(rng, shuffled);
    std::optional<Packet> whole;
    for (const Bytes& frame : shuffled) {
      const Result r = Feed(frame);
      if (r.packet) whole = r.packet;
    }
    ASSERT_TRUE(whole);
    EXPECT_GE(whole->segment_length, std::min<uint32_t>(whole->length, whole->l4_offset + 64u));
    ExpectTheSame(*whole, frames, is_v4);
    End(*whole);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace sluice::stages
