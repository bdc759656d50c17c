use proptest::prelude::*;

use super::*;

#[test]
fn units_at_the_top_are_led_to_their_slices() {
    for (pattern, place) in [
        ("/ssh.service", "/system.slice/ssh.service"),
        ("/{ssh,sshd}.service", "/system.slice/{ssh,sshd}.service"),
        ("/{ssh.service,sshd.service}", "/system.slice/{ssh.service,sshd.service}"),
        ("/*.service", "/system.slice/*.service"),
        ("/docker.service/child/**", "/system.slice/docker.service/child/**"),
        ("/getty@tty1.service", "/system.slice/system-getty.slice/getty@tty1.service"),
        ("/serial-getty@ttyS0.service", r"/system.slice/system-serial\x2dgetty.slice/serial-getty@ttyS0.service"),
        ("/*getty@*.service", "/system.slice/**/*getty@*.service"),
        ("/user@1000.service/app.slice", "/user.slice/user-1000.slice/user@1000.service/app.slice"),
        ("/user@*.service", "/user.slice/user-*.slice/user@*.service"),
        ("/session-3.scope", "/user.slice/user-*.slice/session-3.scope"),
        ("/session-*.scope", "/user.slice/user-*.slice/session-*.scope"),
        ("/*.scope", "/user.slice/user-*.slice/**/*.scope"),
        ("/app-firefox-1.scope", "/user.slice/user-*.slice/user@*.service/app.slice/app-firefox-1.scope"),
        ("/docker-*.scope", "/system.slice/docker-*.scope"),
        ("/libpod-0123.scope", "/machine.slice/libpod-0123.scope"),
        ("/cri-containerd-*.scope", "/kubepods.slice/**/cri-containerd-*.scope"),
        ("/user-1000.slice", "/user.slice/user-1000.slice"),
        ("/user-*.slice/**", "/user.slice/user-*.slice/**"),
        ("/system-ssh.slice", "/system.slice/system-ssh.slice"),
        ("/kubepods-burstable-pod1.slice/*", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/*"),
    ] {
        assert_eq!(usual_place(pattern).as_deref(), Some(place), "{pattern}");
        assert_eq!(usual_place(place), None, "{place}");
        assert!(Globs::new(&[place]).is_ok(), "{place}");
    }
}

#[test]
fn nothing_is_said_of_what_may_stand_at_the_top() {
    for pattern in [
        "/",
        "/init.scope",
        "/{init,x}.scope",
        "/system.slice",
        "/system.slice/ssh.service",
        "/batch.slice/*",
        r"/wg\x2dquick.slice",
        "/-.slice",
        "/*",
        "/**",
        "/**/ssh.service",
        "/{system.slice/ssh,sshd}.service",
        "/{a-b,c}.slice",
        "/tenants/db",
        "/lxc.payload.web",
        "/docker/0123",
        "/dev-hugepages.mount",
        "/kubepods/burstable",
        "ssh.service",
    ] {
        assert_eq!(usual_place(pattern), None, "{pattern}");
    }
}

proptest! {
    #[test]
    fn no_pattern_panics(pattern in "/?[a-z\\[\\]{}*,@./-]{0,20}(\\.service|\\.scope|\\.slice)?(/[a-z*]{0,3})?") {
        let _ = usual_place(&pattern);
    }
}
