/* The kernel module's globs (kmod/lms_glob.h) by table, and the cost of the worst of them. Built and run by lms_glob.rs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lms_glob.h"

static int failed;

static void match(const char *glob, const char *path, bool expected)
{
	if (!lms_glob_valid(glob)) {
		printf("%s is a glob\n", glob);
		failed = 1;
	} else if (lms_glob_match(glob, path) != expected) {
		printf("%s should %smatch %s\n", glob, expected ? "" : "not ", path);
		failed = 1;
	}
}

static void yes(const char *glob, const char *path)
{
	match(glob, path, true);
}

static void no(const char *glob, const char *path)
{
	match(glob, path, false);
}

static void bad(const char *glob)
{
	if (lms_glob_valid(glob)) {
		printf("%.40s is no glob\n", glob);
		failed = 1;
	}
}

static void stars(void)
{
	yes("/a/*", "/a/b");
	yes("/a/*", "/a/b c\xff");
	no("/a/*", "/a");
	no("/a/*", "/a/b/c");
	no("/a/*", "/ab");
	yes("/a*b/c", "/aXbYb/c");
	yes("/*a*b*", "/xaxbx");
	no("/*a*b*", "/xbxa");
	yes("/a*", "/a");
	no("/*", "/");
	no("/a*", "/a/b");
	yes("/*/b", "/a/b");
	no("/*b", "/a/b");
}

static void deep(void)
{
	yes("/a/**", "/a/b");
	yes("/a/**", "/a/b/c");
	no("/a/**", "/a");
	no("/a/**", "/ab");
	yes("/a/**/x", "/a/x");
	yes("/a/**/x", "/a/b/c/x");
	no("/a/**/x", "/a/bx");
	no("/a/**/x", "/a/x/y");
	yes("/**", "/a");
	no("/**", "/");
	yes("/**/b", "/b");
	yes("/**/b", "/a/x/b");
	no("/**/b", "/ab");
	yes("/**/a/**/b", "/x/a/y/a/b");
	yes("/**/**/x", "/x");
	yes("/a/**/**", "/a/x");
	no("/a/**/**", "/a");
	yes("/**/a/*/c", "/a/a/b/c");
	yes("/**/*a/b/**", "/x/ya/za/b/c");
	no("/**/*a/b/**", "/x/ya/za/b");
}

static void single_bytes(void)
{
	yes("/a?", "/ab");
	yes("/a?", "/a\xff");
	no("/a?", "/a");
	no("/a?b", "/a/b");
	yes("/[ab]x", "/bx");
	no("/[ab]x", "/cx");
	yes("/[!ab]x", "/cx");
	yes("/[^ab]x", "/\xff" "x");
	no("/[!ab]x", "/ax");
	no("/a[!x]b", "/a/b");
	no("/a[/]b", "/a/b");
	yes("/[a-c]", "/b");
	no("/[a-c]", "/d");
	no("/[a-c]", "/-");
	yes("/[a-]", "/-");
	yes("/[-a]", "/-");
	yes("/[]a]", "/]");
	yes("/[!]a]", "/b");
	no("/[!]a]", "/]");
	yes("/[*]", "/*");
	no("/[*]", "/a");
	yes("/a\\x2d*", "/a\\x2db.slice");
	no("/a\\*", "/a*");
}

static void root(void)
{
	yes("/", "/");
	no("/", "/a");
	no("/?", "/");
	no("/**/*", "/");
}

static void above(void)
{
	static const struct {
		const char *glob, *path;
		bool matches;
	} cases[] = {
		{ "/a", "/a", true },
		{ "/a", "/a/b/c", true },
		{ "/a", "/ab", false },
		{ "/a*", "/ab/c", true },
		{ "/a/b", "/a", false },
		{ "/a/*", "/a/b/c", true },
		{ "/a/*", "/a", false },
		{ "/**/b", "/a/b/c", true },
		{ "/**/b", "/a/bb/b/c", true },
		{ "/**/b/**", "/a/b", false },
		{ "/*/*/*", "/a/b", false },
		{ "/", "/a/b", true },
		{ "/", "/", true },
		{ "/**", "/", false },
	};
	size_t at;

	for (at = 0; at < sizeof(cases) / sizeof(cases[0]); at++) {
		if (lms_glob_match_above(cases[at].glob, cases[at].path) != cases[at].matches) {
			printf("%s on %s and what is above is wrong\n", cases[at].glob, cases[at].path);
			failed = 1;
		}
	}
}

static void what_is_none(void)
{
	char longest[LMS_GLOB_MAX + 2];

	bad("");
	bad("a");
	bad("*");
	bad("/a**");
	bad("/**a");
	bad("/a/b**/c");
	bad("/***");
	bad("/[a");
	bad("/[]");
	bad("/[!]");
	bad("/[z-a]");
	memset(longest, 'a', sizeof(longest) - 1);
	longest[0] = '/';
	longest[LMS_GLOB_MAX + 1] = '\0';
	bad(longest);
	longest[LMS_GLOB_MAX] = '\0';
	yes(longest, longest);
}

/* A glob and a path of the greatest lengths that try each other in every place. */
static void worst(void)
{
	static char glob[LMS_GLOB_MAX + 1], path[4096];
	struct timespec begun, ended;
	double ms;
	size_t at;

	strcpy(glob, "/**/*");
	memset(glob + 5, 'a', LMS_GLOB_MAX - 6);
	strcat(glob, "b");
	memset(path, 'a', sizeof(path) - 1);
	for (at = 0; at < sizeof(path) - 1; at += 256)
		path[at] = '/';
	clock_gettime(CLOCK_MONOTONIC, &begun);
	no(glob, path);
	/* One segment alone, longer than the kernel's are: all of the path against all of the glob. */
	memset(path + 1, 'a', sizeof(path) - 2);
	no(glob, path);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	ms = (ended.tv_sec - begun.tv_sec) * 1e3 + (ended.tv_nsec - begun.tv_nsec) / 1e6;
	printf("the worst globs took %.1f ms\n", ms);
	if (ms > 1000) {
		printf("which is too long\n");
		failed = 1;
	}
}

int main(void)
{
	stars();
	deep();
	single_bytes();
	root();
	above();
	what_is_none();
	worst();
	return failed;
}
