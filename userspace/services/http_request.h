// Reads HTTP/1.x requests (RFC 9112) out of a stream of bytes, one after the other; http-parser does
// the parsing. Fixed memory: what is longer than its limit is refused by the status that says so.
//
// Besides what the library refuses (ambiguous lengths among it): a request of HTTP/1.1 without exactly
// one Host (section 3.2), versions other than 1.x, targets over kMaxTarget, headers over kMaxHeaders,
// bodies over kMaxBody. Bodies are skipped. An Upgrade is ignored (RFC 9110 section 7.8 allows it).
#ifndef SLUICE_SERVICES_HTTP_REQUEST_H_
#define SLUICE_SERVICES_HTTP_REQUEST_H_

#include <http_parser.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sluice::services {

class HttpRequestReader {
 public:
  static constexpr size_t kMaxTarget = 256;
  static constexpr size_t kMaxHeaders = 8192;
  static constexpr size_t kMaxBody = 65'536;

  enum class Outcome : uint8_t {
    kMore,      // all was taken, and the request is not complete
    kComplete,  // what is behind it was not taken
    kBad,       // the stream is of no more use; error_status() says why
  };
  struct Result {
    Outcome outcome = Outcome::kMore;
    size_t taken = 0;
  };

  HttpRequestReader() { Reset(); }
  void Reset();  // for another stream
  Result Feed(std::span<const uint8_t> data);

  // Of the request that is complete, until the next Feed.
  http_method method() const { return static_cast<http_method>(parser_.method); }
  // What is asked for, without a query and, of the absolute form, without the host.
  std::string_view path() const;
  bool keep_alive() const { return keep_alive_; }
  uint16_t error_status() const { return error_status_; }
  // Something of a request has come that is not complete.
  bool in_request() const { return in_request_; }

 private:
  struct Callbacks;

  int Refuse(uint16_t status) {
    error_status_ = status;
    return -1;
  }

  http_parser parser_;
  std::array<char, kMaxTarget> target_;
  uint16_t target_size_;
  uint16_t error_status_;
  uint32_t header_bytes_;
  uint32_t body_bytes_;
  std::array<char, 5> field_;  // the beginning of the header field's name
  uint8_t field_size_;
  uint8_t hosts_;
  bool in_field_;
  bool in_request_;
  bool complete_;
  bool keep_alive_;
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_HTTP_REQUEST_H_
