/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Globs over the paths of groups, as docs/policy.md describes them under "Naming groups", but
 * without braces.
 *
 * Plain C, so that a test can build it on the host and hold it against the daemon's own matcher. No
 * recursion and no memory: a mismatch goes back to the last star of the same segment, and where
 * that can't help to the last `**` segment. An earlier one need never be tried again, because a
 * later one can take whatever it could take more. So a match costs at most strlen(glob) *
 * strlen(path) steps.
 */
#ifndef OOMWARDEN_LMS_GLOB_H
#define OOMWARDEN_LMS_GLOB_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#endif

#define LMS_GLOB_MAX	1024	/* bytes of a glob */

/*
 * Whether the class that begins behind a `[` holds a byte. Sets *end behind its `]`, or to NULL
 * where it has none or a range of it goes downwards. A slash is in no class, not even in one that
 * names what it does not hold.
 */
static inline bool lms_glob_class(const char *at, char byte, const char **end)
{
	unsigned char low = 1, high = 0, sought = byte;
	bool negated = false, found = false, range = false, first = true;

	*end = NULL;
	if (*at == '!' || *at == '^') {
		negated = true;
		at++;
	}
	for (; *at && (*at != ']' || first); at++) {
		unsigned char c = *at;

		if (range) {
			if (c < low)
				return false;
			high = c;
			range = false;
		} else if (c == '-' && !first) {
			range = true;
		} else {
			found |= low <= sought && sought <= high;
			low = c;
			high = c;
		}
		first = false;
	}
	if (!*at)
		return false;
	*end = at + 1;
	/* A range that nothing follows is a hyphen. */
	found |= (low <= sought && sought <= high) || (range && sought == '-');
	return byte && byte != '/' && found != negated;
}

/* lms_glob_match(), or lms_glob_match_above() where `above`. */
static inline bool lms_glob_matches(const char *glob, const char *path, bool above)
{
	const char *star = NULL, *star_path = NULL;	/* behind the last `*` of this segment, and what it has not taken */
	const char *deep = NULL, *deep_path = NULL;	/* behind the last `**` and its slash, and the segment after its own */
	bool begins = false;				/* both stand at the beginning of a segment */

	if (glob[0] == '/' && !glob[1])
		return above || (path[0] == '/' && !path[1]);
	if (path[0] == '/' && !path[1])
		return false;
	for (;;) {
		const char *end = NULL;
		bool fits;

		if (begins && glob[0] == '*' && glob[1] == '*' && (!glob[2] || glob[2] == '/')) {
			if (!glob[2])
				return *path;
			glob += 3;
			deep = glob;
			deep_path = path;
			star = NULL;
			continue;
		}
		begins = false;
		if (*glob == '*') {
			star = ++glob;
			star_path = path;
			continue;
		}
		if (!*glob && above && *path == '/')
			return true;
		if (!*path)
			return !*glob;
		if (*glob == '/' && *path == '/') {
			glob++;
			path++;
			star = NULL;
			begins = true;
			continue;
		}
		if (*glob == '[')
			fits = lms_glob_class(glob + 1, *path, &end);
		else
			fits = *glob == '?' ? *path != '/' : *glob == *path;
		if (fits) {
			glob = end ? end : glob + 1;
			path++;
		} else if (star && *star_path != '/') {
			path = ++star_path;
			glob = star;
		} else if (deep) {
			while (*deep_path && *deep_path != '/')
				deep_path++;
			if (!*deep_path)
				return false;
			path = ++deep_path;
			glob = deep;
			star = NULL;
			begins = true;
		} else {
			return false;
		}
	}
}

/*
 * Whether a path, which begins with a slash and ends without one, matches. The root, "/", is
 * matched by "/" alone.
 */
static inline bool lms_glob_match(const char *glob, const char *path)
{
	return lms_glob_matches(glob, path, false);
}

/*
 * Whether a path matches, or that of a group above it: the same path up to one of its slashes, or
 * the root.
 */
static inline bool lms_glob_match_above(const char *glob, const char *path)
{
	return lms_glob_matches(glob, path, true);
}

/*
 * Whether a text is a glob: begins with a slash, is not too long, closes its classes, whose ranges
 * go upwards, and has `**` as whole segments only. Anything else would match less than whoever
 * wrote it thinks.
 */
static inline bool lms_glob_valid(const char *glob)
{
	size_t at = 0;

	if (glob[0] != '/')
		return false;
	while (glob[at]) {
		if (at >= LMS_GLOB_MAX)
			return false;
		if (glob[at] == '[') {
			const char *end;

			lms_glob_class(glob + at + 1, 0, &end);
			if (!end)
				return false;
			at = end - glob;
			continue;
		}
		if (glob[at] == '*' && glob[at + 1] == '*') {
			if (glob[at - 1] != '/' || (glob[at + 2] && glob[at + 2] != '/'))
				return false;
			at++;
		}
		at++;
	}
	return at <= LMS_GLOB_MAX;
}

#endif
