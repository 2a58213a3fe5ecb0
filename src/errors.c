#include "errors.h"

static const struct {
  const char *text, *meaning, *remedy;
} errors[] = {
  {"ok", "", ""},
#define NST_ERROR_ROW(name, text, meaning, remedy) {text, meaning, remedy},
  NST_ERRORS(NST_ERROR_ROW)
#undef NST_ERROR_ROW
};

const char *nst_error_text(nst_error error) {
  return errors[error].text;
}

const char *nst_error_meaning(nst_error error) {
  return errors[error].meaning;
}

const char *nst_error_remedy(nst_error error) {
  return errors[error].remedy;
}
