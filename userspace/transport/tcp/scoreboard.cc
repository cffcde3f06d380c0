#include "transport/tcp/scoreboard.h"

namespace sluice::transport {

bool Scoreboard::Append(TxSegments& pool, wire::TcpSeq seq, uint32_t length, uint8_t flags,
                        Nanos now) {
  const uint32_t index = pool.Alloc();
  if (index == kNoIndex) return false;
  pool[index] = {seq, length, now, kNoIndex, kNoIndex, flags};
  Link(pool, index, tail_);
  bytes_ += length;
  return true;
}

void Scoreboard::Link(TxSegments& pool, uint32_t index, uint32_t after) {
  TxSegment& s = pool[index];
  s.previous = after;
  s.next = after == kNoIndex ? head_ : pool[after].next;
  (after == kNoIndex ? head_ : pool[after].next) = index;
  (s.next == kNoIndex ? tail_ : pool[s.next].previous) = index;
  ++count_;
}

void Scoreboard::ClearMarks(TxSegment& s) {
  if (s.Has(kTxSacked)) {
    sacked_bytes_ -= s.length;
    --sacked_segments_;
  }
  if (s.Has(kTxLost)) lost_bytes_ -= s.length;
  if (s.Has(kTxRetransmitted)) retransmitted_bytes_ -= s.length;
  s.flags &= static_cast<uint8_t>(~(kTxSacked | kTxLost | kTxRetransmitted));
}

void Scoreboard::PopFront(TxSegments& pool) {
  const uint32_t index = head_;
  TxSegment& s = pool[index];
  ClearMarks(s);
  bytes_ -= s.length;
  --count_;
  head_ = s.next;
  (head_ == kNoIndex ? tail_ : pool[head_].previous) = kNoIndex;
  if (hint_ == index) hint_ = head_;
  if (found_ == index) found_ = head_;
  if (walk_ == index) walk_ = head_;
  pool.Free(index);
}

void Scoreboard::TrimFront(TxSegments& pool, uint32_t n) {
  TxSegment& s = pool[head_];
  s.seq += n;
  s.length -= n;
  bytes_ -= n;
  if (s.Has(kTxSacked)) sacked_bytes_ -= n;
  if (s.Has(kTxLost)) lost_bytes_ -= n;
  if (s.Has(kTxRetransmitted)) retransmitted_bytes_ -= n;
  s.flags &= static_cast<uint8_t>(~kTxSyn);
}

bool Scoreboard::Split(TxSegments& pool, uint32_t index, uint32_t at) {
  const uint32_t second = pool.Alloc();
  if (second == kNoIndex) return false;
  TxSegment& a = pool[index];
  TxSegment& b = pool[second];
  b = a;
  b.seq = a.seq + at;
  b.length = a.length - at;
  b.flags &= static_cast<uint8_t>(~(kTxSyn | kTxProbe));
  a.length = at;
  a.flags &= static_cast<uint8_t>(~(kTxFin | kTxPush | kTxProbe));
  if (a.Has(kTxSacked)) ++sacked_segments_;
  Link(pool, second, index);
  return true;
}

void Scoreboard::Clear(TxSegments& pool) {
  while (!empty()) PopFront(pool);
  hint_ = found_ = walk_ = kNoIndex;
}

uint32_t Scoreboard::Find(const TxSegments& pool, wire::TcpSeq seq, uint32_t& budget) {
  if (empty() || seq.Before(pool[head_].seq) || seq.AtOrAfter(pool[tail_].end())) return kNoIndex;
  uint32_t i = found_ == kNoIndex ? head_ : found_;
  if (seq.Before(pool[i].seq)) {
    if (seq - pool[head_].seq < pool[i].seq - seq) i = head_;
  } else if (pool[tail_].end() - seq < seq - pool[i].seq) {
    i = tail_;
  }
  while (budget > 0) {
    const TxSegment& x = pool[i];
    found_ = i;
    if (seq.Before(x.seq)) {
      i = x.previous;
    } else if (seq.AtOrAfter(x.end())) {
      i = x.next;
    } else {
      return i;
    }
    --budget;
  }
  return kNoIndex;
}

void Scoreboard::MarkSacked(TxSegments& pool, uint32_t index) {
  TxSegment& s = pool[index];
  if (s.Has(kTxSacked)) return;
  ClearMarks(s);
  s.flags |= kTxSacked;
  sacked_bytes_ += s.length;
  ++sacked_segments_;
}

void Scoreboard::MarkLost(TxSegments& pool, uint32_t index) {
  TxSegment& s = pool[index];
  if (s.Has(kTxSacked)) return;
  if (s.Has(kTxRetransmitted)) {
    retransmitted_bytes_ -= s.length;
    s.flags &= static_cast<uint8_t>(~kTxRetransmitted);
  }
  if (!s.Has(kTxLost)) {
    lost_bytes_ += s.length;
    s.flags |= kTxLost;
  }
  if (hint_ != kNoIndex && s.seq.Before(pool[hint_].seq)) hint_ = index;
}

void Scoreboard::MarkRetransmitted(TxSegments& pool, uint32_t index, Nanos now) {
  TxSegment& s = pool[index];
  s.sent = now;
  if (!s.Has(kTxRetransmitted)) retransmitted_bytes_ += s.length;
  s.flags |= kTxRetransmitted | kTxEverRetransmitted;
  s.flags &= static_cast<uint8_t>(~kTxProbe);
  // In sequence with the marks: one that was not lost counts as such while it is in flight twice.
  if (!s.Has(kTxLost)) {
    lost_bytes_ += s.length;
    s.flags |= kTxLost;
  }
}

void Scoreboard::MarkAllLost(TxSegments& pool) {
  const bool reneged = !empty() && pool[head_].Has(kTxSacked);
  for (uint32_t i = head_; i != kNoIndex; i = pool[i].next) {
    if (reneged) ClearMarks(pool[i]);
    MarkLost(pool, i);
  }
  hint_ = head_;
}

void Scoreboard::ForgetLosses(TxSegments& pool) {
  for (uint32_t i = head_; i != kNoIndex; i = pool[i].next) {
    TxSegment& s = pool[i];
    if (s.Has(kTxLost) && !s.Has(kTxRetransmitted)) {
      lost_bytes_ -= s.length;
      s.flags &= static_cast<uint8_t>(~kTxLost);
    }
  }
}

uint32_t Scoreboard::NextLost(const TxSegments& pool) {
  if (lost_bytes_ == retransmitted_bytes_) return kNoIndex;
  for (uint32_t i = hint_ == kNoIndex ? head_ : hint_; i != kNoIndex; i = pool[i].next) {
    if (pool[i].Has(kTxLost) && !pool[i].Has(kTxRetransmitted)) return hint_ = i;
  }
  return kNoIndex;
}

}  // namespace sluice::transport
