#include "services/http_request.h"

#include <algorithm>

namespace sluice::services {

struct HttpRequestReader::Callbacks {
  static HttpRequestReader& Self(http_parser* p) {
    return *static_cast<HttpRequestReader*>(p->data);
  }

  static int OnBegin(http_parser* p) {
    HttpRequestReader& r = Self(p);
    r.target_size_ = 0;
    r.header_bytes_ = r.body_bytes_ = 0;
    r.field_size_ = r.hosts_ = 0;
    r.in_field_ = false;
    r.in_request_ = true;
    return 0;
  }

  static int OnUrl(http_parser* p, const char* at, size_t n) {
    HttpRequestReader& r = Self(p);
    if (n > kMaxTarget - r.target_size_) return r.Refuse(414);
    std::copy(at, at + n, r.target_.begin() + r.target_size_);
    r.target_size_ = static_cast<uint16_t>(r.target_size_ + n);
    return 0;
  }

  static int Count(HttpRequestReader& r, size_t n) {
    r.header_bytes_ += static_cast<uint32_t>(std::min(n, kMaxHeaders + 1));
    return r.header_bytes_ > kMaxHeaders ? r.Refuse(431) : 0;
  }

  static int OnField(http_parser* p, const char* at, size_t n) {
    HttpRequestReader& r = Self(p);
    if (!r.in_field_) r.field_size_ = 0;
    r.in_field_ = true;
    for (size_t i = 0; i < n && r.field_size_ < r.field_.size(); ++i) {
      r.field_[r.field_size_++] = static_cast<char>(at[i] | 0x20);
    }
    return Count(r, n);
  }

  // Also called, with nothing, for an empty value.
  static int OnValue(http_parser* p, const char*, size_t n) {
    HttpRequestReader& r = Self(p);
    if (r.in_field_ && std::string_view(r.field_.data(), r.field_size_) == "host") {
      r.hosts_ = static_cast<uint8_t>(std::min(r.hosts_ + 1, 2));
    }
    r.in_field_ = false;
    return Count(r, n);
  }

  static int OnHeadersComplete(http_parser* p) {
    HttpRequestReader& r = Self(p);
    if (p->http_major != 1) return r.Refuse(505);
    if (p->http_minor >= 1 && r.hosts_ != 1) return r.Refuse(400);
    return 0;
  }

  static int OnBody(http_parser* p, const char*, size_t n) {
    HttpRequestReader& r = Self(p);
    r.body_bytes_ += static_cast<uint32_t>(std::min(n, kMaxBody + 1));
    return r.body_bytes_ > kMaxBody ? r.Refuse(413) : 0;
  }

  static int OnComplete(http_parser* p) {
    HttpRequestReader& r = Self(p);
    r.keep_alive_ = http_should_keep_alive(p) != 0;
    r.complete_ = true;
    r.in_request_ = false;
    http_parser_pause(p, 1);
    return 0;
  }

  static http_parser_settings Settings() {
    http_parser_settings s;
    http_parser_settings_init(&s);
    s.on_message_begin = OnBegin;
    s.on_url = OnUrl;
    s.on_header_field = OnField;
    s.on_header_value = OnValue;
    s.on_headers_complete = OnHeadersComplete;
    s.on_body = OnBody;
    s.on_message_complete = OnComplete;
    return s;
  }
};

void HttpRequestReader::Reset() {
  http_parser_init(&parser_, HTTP_REQUEST);
  target_size_ = error_status_ = 0;
  header_bytes_ = body_bytes_ = 0;
  field_size_ = hosts_ = 0;
  in_field_ = in_request_ = complete_ = keep_alive_ = false;
}

HttpRequestReader::Result HttpRequestReader::Feed(std::span<const uint8_t> data) {
  static const http_parser_settings kSettings = Callbacks::Settings();
  if (data.empty()) return {};  // to the library that is the end of the stream
  parser_.data = this;
  complete_ = false;
  if (HTTP_PARSER_ERRNO(&parser_) == HPE_PAUSED) http_parser_pause(&parser_, 0);
  const size_t taken = http_parser_execute(
      &parser_, &kSettings, reinterpret_cast<const char*>(data.data()), data.size());
  if (complete_) return {Outcome::kComplete, taken};
  if (HTTP_PARSER_ERRNO(&parser_) != HPE_OK) {
    if (error_status_ == 0) {
      error_status_ = HTTP_PARSER_ERRNO(&parser_) == HPE_HEADER_OVERFLOW ? 431 : 400;
    }
    return {Outcome::kBad, taken};
  }
  return {Outcome::kMore, taken};
}

std::string_view HttpRequestReader::path() const {
  http_parser_url url;
  http_parser_url_init(&url);
  const std::string_view target(target_.data(), target_size_);
  if (http_parser_parse_url(target.data(), target.size(), 0, &url) != 0) return {};
  if ((url.field_set & 1 << UF_PATH) == 0) return "/";
  return target.substr(url.field_data[UF_PATH].off, url.field_data[UF_PATH].len);
}

}  // namespace sluice::services
