BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0008');
CREATE TABLE attempt_messages (
	run_id VARCHAR NOT NULL, 
	round INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	stage VARCHAR NOT NULL, 
	agent VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	CONSTRAINT pk_attempt_messages PRIMARY KEY (run_id, round, attempt, stage, agent)
);
CREATE TABLE attempts (
	run_id VARCHAR NOT NULL, 
	round INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	"group" INTEGER NOT NULL, 
	terms TEXT NOT NULL, 
	members JSON NOT NULL, 
	roster TEXT, 
	dealers JSON, 
	survivors JSON, 
	signers JSON, 
	CONSTRAINT pk_attempts PRIMARY KEY (run_id, round, number, "group")
);
CREATE TABLE audit (
	seq INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	actor VARCHAR NOT NULL, 
	action VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	detail TEXT NOT NULL, 
	previous VARCHAR NOT NULL, 
	hash VARCHAR NOT NULL, 
	CONSTRAINT pk_audit PRIMARY KEY (seq)
);
INSERT INTO "audit" VALUES(1,1700000000.0,'coordinator','coordinator.started','coordinator','{"operator_key": "ed25519:bNb94nQOkb2XVuedR1kqSdEAxrktZaZEo_qp6jXLydk", "tokens": {"operator": {"role": "operator", "not_after": "9999-01-01T00:00:00+00:00", "sha256": "bb46f5c6"}, "viewer": {"role": "viewer", "not_after": "9999-01-01T00:00:00+00:00", "sha256": "1e99f74d"}, "worker": {"role": "worker", "not_after": "9999-01-01T00:00:00+00:00", "sha256": "8595b56f"}}}','sha256:0000000000000000000000000000000000000000000000000000000000000000','sha256:231d568175aa6aa027920dfeaf76384a016d67ae4dd7fe2c403202495ff417a8');
INSERT INTO "audit" VALUES(2,1700000000.0,'operator','member.approved','member/ada','{"key": "ed25519:Y8OLGeRhIV6pW9aGGbZ1FFwv6tDUpLCFv1j8SZetRbA"}','sha256:231d568175aa6aa027920dfeaf76384a016d67ae4dd7fe2c403202495ff417a8','sha256:3d1a064b8669c775213c25d84a0fe99903c1e89f9aa17e80be9580ad831fd507');
INSERT INTO "audit" VALUES(3,1700000000.0,'operator','member.approved','member/bob','{"key": "ed25519:ogdUQWWV7LJZFkZJjGdWcHUWKPHyoPcDbAFGb9Zedhk"}','sha256:3d1a064b8669c775213c25d84a0fe99903c1e89f9aa17e80be9580ad831fd507','sha256:a37588771760e79852191ae31bb5422bd54678343812e539dcb5c8211c7462c5');
INSERT INTO "audit" VALUES(4,1700000000.0,'operator','member.approved','member/cleo','{"key": "ed25519:CxFaSk_vEdtkjPiC2QLgU1fs7xL7FQUFGRl9k2fJ11E"}','sha256:a37588771760e79852191ae31bb5422bd54678343812e539dcb5c8211c7462c5','sha256:094b97202d51af54171f69972b74c377eeaf76ea11ba91de89a53d11ba66af8b');
INSERT INTO "audit" VALUES(5,1700000000.0,'operator','member.approved','member/dan','{"key": "ed25519:YtguneD8DnkvN1TLU7vjDs3MvTaq9ZLA0zZZXB2FOec"}','sha256:094b97202d51af54171f69972b74c377eeaf76ea11ba91de89a53d11ba66af8b','sha256:bc0e38b84035bab9772321e90191b4cf8f4d2274b349d72cdab246e050dc4b0b');
INSERT INTO "audit" VALUES(6,1700000000.0,'operator','run.draft','run/ended','{"name": "a run"}','sha256:bc0e38b84035bab9772321e90191b4cf8f4d2274b349d72cdab246e050dc4b0b','sha256:416b5d5f84e528094afdd0138239bcea92481b7460d28108c673075af2e6aef8');
INSERT INTO "audit" VALUES(7,1700000000.0,'operator','run.running','run/ended','{}','sha256:416b5d5f84e528094afdd0138239bcea92481b7460d28108c673075af2e6aef8','sha256:50cb8f68d40a831f88d817f28a3414ff33c14dad30fd82a709f078968fefeca9');
INSERT INTO "audit" VALUES(8,1700000000.0,'worker','work.leased','run/ended','{"kind": "prepare", "lease": 1, "worker": "worker"}','sha256:50cb8f68d40a831f88d817f28a3414ff33c14dad30fd82a709f078968fefeca9','sha256:d10bb58e165d485d1e5b3cef548fc00ab3a6d60e4eee9a70658112094d76abc9');
INSERT INTO "audit" VALUES(9,1700000000.0,'worker','work.done','run/ended','{"kind": "prepare", "lease": 1, "worker": "worker"}','sha256:d10bb58e165d485d1e5b3cef548fc00ab3a6d60e4eee9a70658112094d76abc9','sha256:bc63cb214b363cec18e938840ff1dcf322365ab5129960120caebf3ba444e472');
INSERT INTO "audit" VALUES(10,1700000000.0,'coordinator','run.prepared','run/ended','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c", "waits_for": "the operator''s signature"}','sha256:bc63cb214b363cec18e938840ff1dcf322365ab5129960120caebf3ba444e472','sha256:f6fac1b43c72e1ff43bdd2721d3f92c6bd56c3af5d98d10e07a48814646fcc85');
INSERT INTO "audit" VALUES(11,1700000000.0,'operator','run.signed','run/ended','{}','sha256:f6fac1b43c72e1ff43bdd2721d3f92c6bd56c3af5d98d10e07a48814646fcc85','sha256:0ca08a9c1ada7e5f6dd01d59f014017912926c8fb70522fb4797b07802af6e39');
INSERT INTO "audit" VALUES(12,1700000000.0,'coordinator','round.open','run/ended/round/1','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c"}','sha256:0ca08a9c1ada7e5f6dd01d59f014017912926c8fb70522fb4797b07802af6e39','sha256:3dc396ec4badf57d58193ccfa8181927d462e9184f74929813e1bbec04f36d57');
INSERT INTO "audit" VALUES(13,1700000000.0,'ada','update.ready','run/ended/round/1','{"ready": 1}','sha256:3dc396ec4badf57d58193ccfa8181927d462e9184f74929813e1bbec04f36d57','sha256:eb0ba10876b16138f5113bd110f1f26c7e0b4d493119c2bd4aa8fed08ee3181c');
INSERT INTO "audit" VALUES(14,1700000000.0,'bob','update.ready','run/ended/round/1','{"ready": 2}','sha256:eb0ba10876b16138f5113bd110f1f26c7e0b4d493119c2bd4aa8fed08ee3181c','sha256:42b1aed956378326eb9f831fa410fc43b3571c20c5707dbdab42043ee22908b3');
INSERT INTO "audit" VALUES(15,1700000000.0,'cleo','update.ready','run/ended/round/1','{"ready": 3}','sha256:42b1aed956378326eb9f831fa410fc43b3571c20c5707dbdab42043ee22908b3','sha256:0e5fd3ebb5344f33549ac82f90af42d7ff26e6176a7acd644eb429efb1775230');
INSERT INTO "audit" VALUES(16,1700000000.0,'dan','update.ready','run/ended/round/1','{"ready": 4}','sha256:0e5fd3ebb5344f33549ac82f90af42d7ff26e6176a7acd644eb429efb1775230','sha256:b567c667adf452cd530e8cee5716f387efccdf70b82c46cda842ab2beb38c07c');
INSERT INTO "audit" VALUES(17,1700000000.0,'coordinator','round.keys','run/ended/round/1','{"attempt": 1, "members": 4, "groups": 1}','sha256:b567c667adf452cd530e8cee5716f387efccdf70b82c46cda842ab2beb38c07c','sha256:5fb63c00daaac8d250c1e0705bcbb6f1c66bdcc90ef4fe5a424290c4940a9d9d');
INSERT INTO "audit" VALUES(18,1700000000.0,'coordinator','attempt.opened','run/ended/round/1/attempt/1','{"group": 0, "members": ["ada", "bob", "cleo", "dan"], "threshold": 3}','sha256:5fb63c00daaac8d250c1e0705bcbb6f1c66bdcc90ef4fe5a424290c4940a9d9d','sha256:8d12804ae54aac5305cf649b4f0e4b8ac286c3b35d9f1d78d0468b6ac5ac15ed');
INSERT INTO "audit" VALUES(19,1700000000.0,'coordinator','round.shares','run/ended/round/1','{"attempt": 1, "lost": 0}','sha256:8d12804ae54aac5305cf649b4f0e4b8ac286c3b35d9f1d78d0468b6ac5ac15ed','sha256:a98181c634b454579e5fc119d7d3cd523df2a9c541238eecd6b65f5493f1fefd');
INSERT INTO "audit" VALUES(20,1700000000.0,'coordinator','round.masked','run/ended/round/1','{"attempt": 1, "lost": 0}','sha256:a98181c634b454579e5fc119d7d3cd523df2a9c541238eecd6b65f5493f1fefd','sha256:84c2c516b0dc9ff01a4e96680d77feb71e2e22d44696ba691bc9a55819df3d61');
INSERT INTO "audit" VALUES(21,1700000000.0,'coordinator','round.consistency','run/ended/round/1','{"attempt": 1, "lost": 0}','sha256:84c2c516b0dc9ff01a4e96680d77feb71e2e22d44696ba691bc9a55819df3d61','sha256:0c72b32660832ab06a35b9a935e9cfdd9c4636d022fce2c8f694a496d96e8a99');
INSERT INTO "audit" VALUES(22,1700000000.0,'coordinator','attempt.masked','run/ended/round/1/attempt/1','{"group": 0, "survivors": ["ada", "bob", "cleo", "dan"]}','sha256:0c72b32660832ab06a35b9a935e9cfdd9c4636d022fce2c8f694a496d96e8a99','sha256:00eb5a91211adf29ddb84c1c4cabca5903bd1fe3f7c8b5a505721d5f08f704d4');
INSERT INTO "audit" VALUES(23,1700000000.0,'coordinator','round.unmasking','run/ended/round/1','{"attempt": 1, "lost": 0}','sha256:00eb5a91211adf29ddb84c1c4cabca5903bd1fe3f7c8b5a505721d5f08f704d4','sha256:6073a5566901a2cd0214b4829d17a6bd1f11599db586880b21b08806a4e9a6c7');
INSERT INTO "audit" VALUES(24,1700000000.0,'coordinator','round.aggregated','run/ended/round/1','{"updates": 4, "bytes": 216}','sha256:6073a5566901a2cd0214b4829d17a6bd1f11599db586880b21b08806a4e9a6c7','sha256:e1c0c21e515ae23d4de0800aa6fc551d9dce4e0945308bb1f0a54efa246d50c0');
INSERT INTO "audit" VALUES(25,1700000000.0,'coordinator','attempt.deleted','run/ended/round/1','{"vectors": 4}','sha256:e1c0c21e515ae23d4de0800aa6fc551d9dce4e0945308bb1f0a54efa246d50c0','sha256:8ffa8155892563fc864f66b4e7675371905fdbfdf643c58365e24e84c1eb6f87');
INSERT INTO "audit" VALUES(26,1700000000.0,'worker','work.leased','run/ended/round/1','{"kind": "cotune", "lease": 1, "worker": "worker"}','sha256:8ffa8155892563fc864f66b4e7675371905fdbfdf643c58365e24e84c1eb6f87','sha256:3b79a2bb5f04a00995c349d390cf5122205a071ea5c16f9f6a41b8f6d7b6f502');
INSERT INTO "audit" VALUES(27,1700000000.0,'worker','round.cotuning','run/ended/round/1','{}','sha256:3b79a2bb5f04a00995c349d390cf5122205a071ea5c16f9f6a41b8f6d7b6f502','sha256:5f1e9ae59fceae007c1d5ae9d1f0eb4da01de6e4079303f8ca555ff298027f17');
INSERT INTO "audit" VALUES(28,1700000000.0,'worker','work.done','run/ended/round/1','{"kind": "cotune", "lease": 1, "worker": "worker"}','sha256:5f1e9ae59fceae007c1d5ae9d1f0eb4da01de6e4079303f8ca555ff298027f17','sha256:20f60a0c625f4ac79117d3708e97aa40356102ffd180b4c767d2c280169812d3');
INSERT INTO "audit" VALUES(29,1700000000.0,'coordinator','round.evaluating','run/ended/round/1','{"steps": 1, "slm_loss": 1.0}','sha256:20f60a0c625f4ac79117d3708e97aa40356102ffd180b4c767d2c280169812d3','sha256:676d1719bf3e782c43e52648e0b7766c70fc15c3ff613af79dc79fa1c11b2624');
INSERT INTO "audit" VALUES(30,1700000000.0,'worker','work.leased','run/ended/round/1','{"kind": "evaluate", "lease": 1, "worker": "worker"}','sha256:676d1719bf3e782c43e52648e0b7766c70fc15c3ff613af79dc79fa1c11b2624','sha256:2e77417f8822fceba5fc22a3528425f28d397aa3f84dbfd31df7a6201aab1001');
INSERT INTO "audit" VALUES(31,1700000000.0,'worker','work.done','run/ended/round/1','{"kind": "evaluate", "lease": 1, "worker": "worker"}','sha256:2e77417f8822fceba5fc22a3528425f28d397aa3f84dbfd31df7a6201aab1001','sha256:e1fdb271f97cebb903e4aa759e24fa6126339e0028d1ebf74bb57aae39157e2f');
INSERT INTO "audit" VALUES(32,1700000000.0,'coordinator','round.published','run/ended/round/1','{"slm_adapter": "sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f", "llm_adapter": "sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8", "slm": 0.5, "llm": 0.5}','sha256:e1fdb271f97cebb903e4aa759e24fa6126339e0028d1ebf74bb57aae39157e2f','sha256:c6e6bfac0fcf6dd4e565b5a29b9e13aee7b6d6be6c645c54abdc3dc3061ce6ca');
INSERT INTO "audit" VALUES(33,1700000000.0,'coordinator','round.open','run/ended/round/2','{"slm_adapter": "sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f"}','sha256:c6e6bfac0fcf6dd4e565b5a29b9e13aee7b6d6be6c645c54abdc3dc3061ce6ca','sha256:8cb619ebc48117e8419fc2a20a28100530b65700cb7730abdf3b8737c7978c35');
INSERT INTO "audit" VALUES(34,1700000000.0,'ada','update.ready','run/ended/round/2','{"ready": 1}','sha256:8cb619ebc48117e8419fc2a20a28100530b65700cb7730abdf3b8737c7978c35','sha256:c9a295a9118e5c998705cb080b51cca76c9cec0d1a0470d4deed5d8f3b043653');
INSERT INTO "audit" VALUES(35,1700000000.0,'bob','update.ready','run/ended/round/2','{"ready": 2}','sha256:c9a295a9118e5c998705cb080b51cca76c9cec0d1a0470d4deed5d8f3b043653','sha256:26bcc6fb9b75d3f26bbc543af5e02d83e1fc408c79fbf51fe6736b642aef2706');
INSERT INTO "audit" VALUES(36,1700000000.0,'cleo','update.ready','run/ended/round/2','{"ready": 3}','sha256:26bcc6fb9b75d3f26bbc543af5e02d83e1fc408c79fbf51fe6736b642aef2706','sha256:5fc8b605469e1ea29339fca457df54e668b132f6cb5e74a7b142ba7ee0302d1f');
INSERT INTO "audit" VALUES(37,1700000000.0,'dan','update.ready','run/ended/round/2','{"ready": 4}','sha256:5fc8b605469e1ea29339fca457df54e668b132f6cb5e74a7b142ba7ee0302d1f','sha256:09463e6c82bd26b872c33998a5d902dbed68c9ab12465ea50dea3758b8f7856d');
INSERT INTO "audit" VALUES(38,1700000000.0,'coordinator','round.keys','run/ended/round/2','{"attempt": 1, "members": 4, "groups": 1}','sha256:09463e6c82bd26b872c33998a5d902dbed68c9ab12465ea50dea3758b8f7856d','sha256:f60b81fa5837a29d8914e37663004f7f05ff4a3b088fd2cbe0839f4a4555cee5');
INSERT INTO "audit" VALUES(39,1700000000.0,'coordinator','attempt.opened','run/ended/round/2/attempt/1','{"group": 0, "members": ["ada", "bob", "cleo", "dan"], "threshold": 3}','sha256:f60b81fa5837a29d8914e37663004f7f05ff4a3b088fd2cbe0839f4a4555cee5','sha256:7011419db7a7f5aba8f298f65179abe7ddef630a865742fb5dbf085271a1f3b1');
INSERT INTO "audit" VALUES(40,1700000000.0,'coordinator','round.shares','run/ended/round/2','{"attempt": 1, "lost": 0}','sha256:7011419db7a7f5aba8f298f65179abe7ddef630a865742fb5dbf085271a1f3b1','sha256:ba0808e65bdc6528d9461ad04228e6139fe85d040a361fa9942277b6a20bde21');
INSERT INTO "audit" VALUES(41,1700000000.0,'coordinator','round.masked','run/ended/round/2','{"attempt": 1, "lost": 0}','sha256:ba0808e65bdc6528d9461ad04228e6139fe85d040a361fa9942277b6a20bde21','sha256:ae212b853dcfb1e9edbb03f9df3e6d6e60bf0ee5e6f026c037dd4bc21de80ada');
INSERT INTO "audit" VALUES(42,1700000000.0,'coordinator','round.consistency','run/ended/round/2','{"attempt": 1, "lost": 0}','sha256:ae212b853dcfb1e9edbb03f9df3e6d6e60bf0ee5e6f026c037dd4bc21de80ada','sha256:560e2a2e71da55f1774662f1ba4bf7ced72a66c6e2a0f184fa7f05a99d30d131');
INSERT INTO "audit" VALUES(43,1700000000.0,'coordinator','attempt.masked','run/ended/round/2/attempt/1','{"group": 0, "survivors": ["ada", "bob", "cleo", "dan"]}','sha256:560e2a2e71da55f1774662f1ba4bf7ced72a66c6e2a0f184fa7f05a99d30d131','sha256:93a87f84cc22557b53789c4e44e701bc09607e65620e4ec6d704ac81d114aefe');
INSERT INTO "audit" VALUES(44,1700000000.0,'coordinator','round.unmasking','run/ended/round/2','{"attempt": 1, "lost": 0}','sha256:93a87f84cc22557b53789c4e44e701bc09607e65620e4ec6d704ac81d114aefe','sha256:ffea5d2fdba610538a12d445a2b3ded75edfe210846b9f6aa962f5de594345e7');
INSERT INTO "audit" VALUES(45,1700000000.0,'coordinator','round.aggregated','run/ended/round/2','{"updates": 4, "bytes": 216}','sha256:ffea5d2fdba610538a12d445a2b3ded75edfe210846b9f6aa962f5de594345e7','sha256:3f2435873de2c64a6b165083d0eabd6d1c7b12c2e7ec503555c6d0e57f385831');
INSERT INTO "audit" VALUES(46,1700000000.0,'coordinator','attempt.deleted','run/ended/round/2','{"vectors": 4}','sha256:3f2435873de2c64a6b165083d0eabd6d1c7b12c2e7ec503555c6d0e57f385831','sha256:2e8050f2767cb4669578f0fb824fee59b7bf0b819c5b3e44c8d3464d23b532fc');
INSERT INTO "audit" VALUES(47,1700000000.0,'worker','work.leased','run/ended/round/2','{"kind": "cotune", "lease": 1, "worker": "worker"}','sha256:2e8050f2767cb4669578f0fb824fee59b7bf0b819c5b3e44c8d3464d23b532fc','sha256:63bd421beade8752bb5808cd29d25890f06736856e0a7d11bcacb0c52f205cf1');
INSERT INTO "audit" VALUES(48,1700000000.0,'worker','round.cotuning','run/ended/round/2','{}','sha256:63bd421beade8752bb5808cd29d25890f06736856e0a7d11bcacb0c52f205cf1','sha256:9d5c0e87c421c5452e29dc34ea2594382b054e52d3963a547838da36f0bd2ed1');
INSERT INTO "audit" VALUES(49,1700000000.0,'worker','work.done','run/ended/round/2','{"kind": "cotune", "lease": 1, "worker": "worker"}','sha256:9d5c0e87c421c5452e29dc34ea2594382b054e52d3963a547838da36f0bd2ed1','sha256:cb468ce81a3c30f36077c4c3a32b85fc97e8ec8208176df9fa282a92860605b8');
INSERT INTO "audit" VALUES(50,1700000000.0,'coordinator','round.evaluating','run/ended/round/2','{"steps": 1, "slm_loss": 1.0}','sha256:cb468ce81a3c30f36077c4c3a32b85fc97e8ec8208176df9fa282a92860605b8','sha256:fc698a08f485a6821d0b8c4f6c96f6ffc13b67823f38b03c87f0b7d7da11711a');
INSERT INTO "audit" VALUES(51,1700000000.0,'worker','work.leased','run/ended/round/2','{"kind": "evaluate", "lease": 1, "worker": "worker"}','sha256:fc698a08f485a6821d0b8c4f6c96f6ffc13b67823f38b03c87f0b7d7da11711a','sha256:11ef7fbc8b2dbda253c8c24cf2b45f22cae689fcd941dd399a0b2d4678269ba9');
INSERT INTO "audit" VALUES(52,1700000000.0,'worker','work.done','run/ended/round/2','{"kind": "evaluate", "lease": 1, "worker": "worker"}','sha256:11ef7fbc8b2dbda253c8c24cf2b45f22cae689fcd941dd399a0b2d4678269ba9','sha256:3b5800465ebb6c6e498f0b86f9a764e62a133b5f846d7d7bcd66432340810343');
INSERT INTO "audit" VALUES(53,1700000000.0,'coordinator','round.published','run/ended/round/2','{"slm_adapter": "sha256:3773bac46a43b44037327d255cf7c0d1e37430d2f0cebb3b89d871febf07cbee", "llm_adapter": "sha256:d5d416911c0d74239dec4f5c5c337b02b2245567f3ebdd93efaf04fca1cae768", "slm": 0.5, "llm": 0.5}','sha256:3b5800465ebb6c6e498f0b86f9a764e62a133b5f846d7d7bcd66432340810343','sha256:40e1dc1e960c98e116d0f268337c752332538901f483b1a67e83f1b75d031bbc');
INSERT INTO "audit" VALUES(54,1700000000.0,'coordinator','run.finished','run/ended','{}','sha256:40e1dc1e960c98e116d0f268337c752332538901f483b1a67e83f1b75d031bbc','sha256:4009c5ae665ae41d7284fe881de33160883162a66d341263237bc341c3f8def8');
INSERT INTO "audit" VALUES(55,1700000060.0,'operator','run.draft','run/masked','{"name": "a run"}','sha256:4009c5ae665ae41d7284fe881de33160883162a66d341263237bc341c3f8def8','sha256:6f926b4e45fd87d50251c7fbf52151996dd8afd2921108ce28feb18995c48c9d');
INSERT INTO "audit" VALUES(56,1700000060.0,'operator','run.running','run/masked','{}','sha256:6f926b4e45fd87d50251c7fbf52151996dd8afd2921108ce28feb18995c48c9d','sha256:4ffe44d7b988378e66d6213dd1b95fa9d2c50b275283e6f2b24175726f400918');
INSERT INTO "audit" VALUES(57,1700000060.0,'worker','work.leased','run/masked','{"kind": "prepare", "lease": 1, "worker": "worker"}','sha256:4ffe44d7b988378e66d6213dd1b95fa9d2c50b275283e6f2b24175726f400918','sha256:351650b610fdbce744b508f382a282e2fa0c2c7d04bac474ef58fee2fa590487');
INSERT INTO "audit" VALUES(58,1700000060.0,'worker','work.done','run/masked','{"kind": "prepare", "lease": 1, "worker": "worker"}','sha256:351650b610fdbce744b508f382a282e2fa0c2c7d04bac474ef58fee2fa590487','sha256:0bbf85ae385e271011835dc5d14b73c39b04734debecfd8d9a5b542e5c5b2b99');
INSERT INTO "audit" VALUES(59,1700000060.0,'coordinator','run.prepared','run/masked','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c", "waits_for": "the operator''s signature"}','sha256:0bbf85ae385e271011835dc5d14b73c39b04734debecfd8d9a5b542e5c5b2b99','sha256:2b6005b957b97b9cf9bcbbb26ffa088906dda0de2fe93266108b1187988d66b7');
INSERT INTO "audit" VALUES(60,1700000060.0,'operator','run.signed','run/masked','{}','sha256:2b6005b957b97b9cf9bcbbb26ffa088906dda0de2fe93266108b1187988d66b7','sha256:30b510a7f68ce19cfdab9702d0205457db2ae697fb9f3bf43d61977b6337d152');
INSERT INTO "audit" VALUES(61,1700000060.0,'coordinator','round.open','run/masked/round/1','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c"}','sha256:30b510a7f68ce19cfdab9702d0205457db2ae697fb9f3bf43d61977b6337d152','sha256:6ea5021d2e654cbffd7b1ed51fc4e6bb52849a743098a13b63d66e5c114764ba');
INSERT INTO "audit" VALUES(62,1700000060.0,'ada','update.ready','run/masked/round/1','{"ready": 1}','sha256:6ea5021d2e654cbffd7b1ed51fc4e6bb52849a743098a13b63d66e5c114764ba','sha256:0f92551cd664ed44ca246d6eb01e0f20751ef4a813c3ffa9976c1717e7350ced');
INSERT INTO "audit" VALUES(63,1700000060.0,'bob','update.ready','run/masked/round/1','{"ready": 2}','sha256:0f92551cd664ed44ca246d6eb01e0f20751ef4a813c3ffa9976c1717e7350ced','sha256:1c2d0e3cedef2d06d61877debb4049c54f92984a916f67d73b11ecd0992c1bdb');
INSERT INTO "audit" VALUES(64,1700000060.0,'cleo','update.ready','run/masked/round/1','{"ready": 3}','sha256:1c2d0e3cedef2d06d61877debb4049c54f92984a916f67d73b11ecd0992c1bdb','sha256:42e9479b66dbd236f808bb586cbbc4db6644c78e24a9c550bd998592a58136aa');
INSERT INTO "audit" VALUES(65,1700000060.0,'dan','update.ready','run/masked/round/1','{"ready": 4}','sha256:42e9479b66dbd236f808bb586cbbc4db6644c78e24a9c550bd998592a58136aa','sha256:28e2dd07243d9528cc1eddf02afe658bd74a35e50c99eef6cc2260beb7b31576');
INSERT INTO "audit" VALUES(66,1700000060.0,'coordinator','round.keys','run/masked/round/1','{"attempt": 1, "members": 4, "groups": 1}','sha256:28e2dd07243d9528cc1eddf02afe658bd74a35e50c99eef6cc2260beb7b31576','sha256:95abb27ebe68a54e1a254f10e9e7e104980490721c04d455f386379db444f1f9');
INSERT INTO "audit" VALUES(67,1700000060.0,'coordinator','attempt.opened','run/masked/round/1/attempt/1','{"group": 0, "members": ["ada", "bob", "cleo", "dan"], "threshold": 3}','sha256:95abb27ebe68a54e1a254f10e9e7e104980490721c04d455f386379db444f1f9','sha256:55d96fe4dfad96117def331e98ecb92b8545518cdbbd1968b306c0df3e2f8b88');
INSERT INTO "audit" VALUES(68,1700000060.0,'coordinator','round.shares','run/masked/round/1','{"attempt": 1, "lost": 0}','sha256:55d96fe4dfad96117def331e98ecb92b8545518cdbbd1968b306c0df3e2f8b88','sha256:9af8bb66cab212fad4c7a19394551fe78d01a2f843622efc40976ad7ed2c5ca9');
INSERT INTO "audit" VALUES(69,1700000060.0,'coordinator','round.masked','run/masked/round/1','{"attempt": 1, "lost": 0}','sha256:9af8bb66cab212fad4c7a19394551fe78d01a2f843622efc40976ad7ed2c5ca9','sha256:8c2e0e8b233e01d22b795cc7c0cf86bba4bd9b6a1095cba68a090e658f9b7ac6');
INSERT INTO "audit" VALUES(70,1700000060.0,'coordinator','round.consistency','run/masked/round/1','{"attempt": 1, "lost": 0}','sha256:8c2e0e8b233e01d22b795cc7c0cf86bba4bd9b6a1095cba68a090e658f9b7ac6','sha256:0c6d83ef150fb4d6d63d8d60b9bd35ac2af36f6e7f38ba6900822b773bc0a0a5');
INSERT INTO "audit" VALUES(71,1700000060.0,'coordinator','attempt.masked','run/masked/round/1/attempt/1','{"group": 0, "survivors": ["ada", "bob", "cleo", "dan"]}','sha256:0c6d83ef150fb4d6d63d8d60b9bd35ac2af36f6e7f38ba6900822b773bc0a0a5','sha256:9895820d5b41cea3711f745057fc862a354617d52b325fa0260d07aff9065aa2');
INSERT INTO "audit" VALUES(72,1700000060.0,'coordinator','round.unmasking','run/masked/round/1','{"attempt": 1, "lost": 0}','sha256:9895820d5b41cea3711f745057fc862a354617d52b325fa0260d07aff9065aa2','sha256:a0b287c93b3fb9f918ca65a917c91c67314d49db4c6b55aa1d06d2a66ca380f8');
INSERT INTO "audit" VALUES(73,1700000060.0,'coordinator','round.aggregated','run/masked/round/1','{"updates": 4, "bytes": 216}','sha256:a0b287c93b3fb9f918ca65a917c91c67314d49db4c6b55aa1d06d2a66ca380f8','sha256:c3e1548acf4c8429482cd758e4ab4c684a22142fcd4a94fed4342bc8e2048e21');
INSERT INTO "audit" VALUES(74,1700000060.0,'coordinator','attempt.deleted','run/masked/round/1','{"vectors": 4}','sha256:c3e1548acf4c8429482cd758e4ab4c684a22142fcd4a94fed4342bc8e2048e21','sha256:637749767eff0297854a7c61858fa02672d80dbe3548f70d531276b975a55f8b');
INSERT INTO "audit" VALUES(75,1700000060.0,'worker','work.leased','run/masked/round/1','{"kind": "cotune", "lease": 1, "worker": "worker"}','sha256:637749767eff0297854a7c61858fa02672d80dbe3548f70d531276b975a55f8b','sha256:ac0f4c18e1248032e6927ace86ae3293f5c3cdfb99e8b05b6dc37c5b32c2b195');
INSERT INTO "audit" VALUES(76,1700000060.0,'worker','round.cotuning','run/masked/round/1','{}','sha256:ac0f4c18e1248032e6927ace86ae3293f5c3cdfb99e8b05b6dc37c5b32c2b195','sha256:f77cf4afe09f971679702707088b7b6368c53c0a24dc9c3ff0c38267fb8c0ab3');
INSERT INTO "audit" VALUES(77,1700000060.0,'worker','work.done','run/masked/round/1','{"kind": "cotune", "lease": 1, "worker": "worker"}','sha256:f77cf4afe09f971679702707088b7b6368c53c0a24dc9c3ff0c38267fb8c0ab3','sha256:31ef943b39b8a1ceb1b15c8e9d8fda33be107b18c11387c2e868876c60ba87d7');
INSERT INTO "audit" VALUES(78,1700000060.0,'coordinator','round.evaluating','run/masked/round/1','{"steps": 1, "slm_loss": 1.0}','sha256:31ef943b39b8a1ceb1b15c8e9d8fda33be107b18c11387c2e868876c60ba87d7','sha256:604a8b5b209f304e6268bab7c151fdb4658e760604255f477a51d12d344e0154');
INSERT INTO "audit" VALUES(79,1700000060.0,'worker','work.leased','run/masked/round/1','{"kind": "evaluate", "lease": 1, "worker": "worker"}','sha256:604a8b5b209f304e6268bab7c151fdb4658e760604255f477a51d12d344e0154','sha256:faeb498a069e4dfccfd9805bbbd7571f3120eb37ceeaeca15584fc64279ac680');
INSERT INTO "audit" VALUES(80,1700000060.0,'worker','work.done','run/masked/round/1','{"kind": "evaluate", "lease": 1, "worker": "worker"}','sha256:faeb498a069e4dfccfd9805bbbd7571f3120eb37ceeaeca15584fc64279ac680','sha256:d296453d2cb37de2c24b7f2536c568e4eb7d8a53945c8bd8d58f4f14064e2cb9');
INSERT INTO "audit" VALUES(81,1700000060.0,'coordinator','round.published','run/masked/round/1','{"slm_adapter": "sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8", "llm_adapter": "sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8", "slm": 0.5, "llm": 0.5}','sha256:d296453d2cb37de2c24b7f2536c568e4eb7d8a53945c8bd8d58f4f14064e2cb9','sha256:b79f811edf8d7badccd4b63f3c0288158547c40d15479aa1f05cf8fa478314b0');
INSERT INTO "audit" VALUES(82,1700000060.0,'coordinator','round.open','run/masked/round/2','{"slm_adapter": "sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8"}','sha256:b79f811edf8d7badccd4b63f3c0288158547c40d15479aa1f05cf8fa478314b0','sha256:7d1de44eafb6549ce48d15da7d44d84d5735851898dad81fb4b2e99b373d2037');
INSERT INTO "audit" VALUES(83,1700000060.0,'ada','update.ready','run/masked/round/2','{"ready": 1}','sha256:7d1de44eafb6549ce48d15da7d44d84d5735851898dad81fb4b2e99b373d2037','sha256:2da7f4bcf0b4558425b2d27b583ad54e8c32bf87d1bc6730e765f6838893eaa2');
INSERT INTO "audit" VALUES(84,1700000060.0,'bob','update.ready','run/masked/round/2','{"ready": 2}','sha256:2da7f4bcf0b4558425b2d27b583ad54e8c32bf87d1bc6730e765f6838893eaa2','sha256:23bde1fe2f6809789d92ab27139c9ca95921c7cca59651b708ad7ed0d3421ccb');
INSERT INTO "audit" VALUES(85,1700000060.0,'cleo','update.ready','run/masked/round/2','{"ready": 3}','sha256:23bde1fe2f6809789d92ab27139c9ca95921c7cca59651b708ad7ed0d3421ccb','sha256:7041099be930d024f88090564c8af6ecbccb5e646ff971b493b87c0fd049df10');
INSERT INTO "audit" VALUES(86,1700000060.0,'dan','update.ready','run/masked/round/2','{"ready": 4}','sha256:7041099be930d024f88090564c8af6ecbccb5e646ff971b493b87c0fd049df10','sha256:5e119d8fc45584334e72c99c4ff7d4fcb5df5895d364b1660cbde723d21a4d87');
INSERT INTO "audit" VALUES(87,1700000060.0,'coordinator','round.keys','run/masked/round/2','{"attempt": 1, "members": 4, "groups": 1}','sha256:5e119d8fc45584334e72c99c4ff7d4fcb5df5895d364b1660cbde723d21a4d87','sha256:6a798d11802644c5dd53208a49838fba5b20dec7b99f91b0035ee2b618708a9f');
INSERT INTO "audit" VALUES(88,1700000060.0,'coordinator','attempt.opened','run/masked/round/2/attempt/1','{"group": 0, "members": ["ada", "bob", "cleo", "dan"], "threshold": 3}','sha256:6a798d11802644c5dd53208a49838fba5b20dec7b99f91b0035ee2b618708a9f','sha256:944ff1a706f7f3009703f32fbc05b770094d1bac49234191ca592d377fbf7b5f');
INSERT INTO "audit" VALUES(89,1700000060.0,'coordinator','round.shares','run/masked/round/2','{"attempt": 1, "lost": 0}','sha256:944ff1a706f7f3009703f32fbc05b770094d1bac49234191ca592d377fbf7b5f','sha256:c2c066d49bba7fcd7b6d987f58a53cd5d148c06ccd2348f70c6fdd240c863548');
INSERT INTO "audit" VALUES(90,1700000060.0,'coordinator','round.masked','run/masked/round/2','{"attempt": 1, "lost": 0}','sha256:c2c066d49bba7fcd7b6d987f58a53cd5d148c06ccd2348f70c6fdd240c863548','sha256:1ce0a4efdbc938017ef8d9536c96c6471c2f74bf84044511baac188d99833b85');
INSERT INTO "audit" VALUES(91,1700000060.0,'coordinator','round.consistency','run/masked/round/2','{"attempt": 1, "lost": 0}','sha256:1ce0a4efdbc938017ef8d9536c96c6471c2f74bf84044511baac188d99833b85','sha256:bba2f1bfb6e1fdc264a81211f7f6de29349a799da093b466f1698afee7b3b841');
INSERT INTO "audit" VALUES(92,1700000060.0,'coordinator','attempt.masked','run/masked/round/2/attempt/1','{"group": 0, "survivors": ["ada", "bob", "cleo", "dan"]}','sha256:bba2f1bfb6e1fdc264a81211f7f6de29349a799da093b466f1698afee7b3b841','sha256:f06257725c740f28b75a12f16097534b47707d6d12cd9f0ac093bcdd38468868');
INSERT INTO "audit" VALUES(93,1700000060.0,'coordinator','round.unmasking','run/masked/round/2','{"attempt": 1, "lost": 0}','sha256:f06257725c740f28b75a12f16097534b47707d6d12cd9f0ac093bcdd38468868','sha256:c335503b1bbe76ac6b19b40f7b7c29d2bdfe3ada325097bf06fb148876fbd970');
INSERT INTO "audit" VALUES(94,1700000060.0,'coordinator','round.aggregated','run/masked/round/2','{"updates": 4, "bytes": 216}','sha256:c335503b1bbe76ac6b19b40f7b7c29d2bdfe3ada325097bf06fb148876fbd970','sha256:57573a955f37f7fa66b29d578db7f69111a0e9041d7b1e058f4a7f51130d049f');
INSERT INTO "audit" VALUES(95,1700000060.0,'coordinator','attempt.deleted','run/masked/round/2','{"vectors": 4}','sha256:57573a955f37f7fa66b29d578db7f69111a0e9041d7b1e058f4a7f51130d049f','sha256:d860cb83468bb788ba374fa4cbbf33ddc611a2ae9755ad1d3e1afe0ee25c4cab');
INSERT INTO "audit" VALUES(96,1700000060.0,'operator','run.paused','run/masked','{}','sha256:d860cb83468bb788ba374fa4cbbf33ddc611a2ae9755ad1d3e1afe0ee25c4cab','sha256:4c5098714977ae5107751e65a22a3cef9d5641c45756a2748b8c24f528dd5b05');
INSERT INTO "audit" VALUES(97,1700000120.0,'operator','run.draft','run/readable','{"name": "a run"}','sha256:4c5098714977ae5107751e65a22a3cef9d5641c45756a2748b8c24f528dd5b05','sha256:07f345cb639420b526820443d0c5537aca5159e51bfdef1f89cc895a31b35ca9');
INSERT INTO "audit" VALUES(98,1700000120.0,'operator','run.warning','run/readable','{"warning": "PlaintextAggregation: the coordinator can read every agent''s update"}','sha256:07f345cb639420b526820443d0c5537aca5159e51bfdef1f89cc895a31b35ca9','sha256:ff52d50b1f6597d385c700e5125df47ce007a58187a3b56f023034a8843124e0');
INSERT INTO "audit" VALUES(99,1700000120.0,'operator','run.running','run/readable','{}','sha256:ff52d50b1f6597d385c700e5125df47ce007a58187a3b56f023034a8843124e0','sha256:f95694dce5095ceb8e6b8b3435c5b71d07542ee5796eb4ae1ed33f2ead2f3418');
INSERT INTO "audit" VALUES(100,1700000120.0,'worker','work.leased','run/readable','{"kind": "prepare", "lease": 1, "worker": "worker"}','sha256:f95694dce5095ceb8e6b8b3435c5b71d07542ee5796eb4ae1ed33f2ead2f3418','sha256:6b115f74bfde3daa0af8653cf4168ead54580bb6750231cb031b58ca0a44ccf5');
INSERT INTO "audit" VALUES(101,1700000120.0,'worker','work.done','run/readable','{"kind": "prepare", "lease": 1, "worker": "worker"}','sha256:6b115f74bfde3daa0af8653cf4168ead54580bb6750231cb031b58ca0a44ccf5','sha256:4d8f1a5da604f458f10b5e88e63822fe3ca556358ed202bd6efd88df1c33411f');
INSERT INTO "audit" VALUES(102,1700000120.0,'coordinator','run.prepared','run/readable','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c", "waits_for": "the operator''s signature"}','sha256:4d8f1a5da604f458f10b5e88e63822fe3ca556358ed202bd6efd88df1c33411f','sha256:cef5f8b2ed458e735058f6ebe6603cf70e66fbc937d7694610e07dfe25ea2d32');
INSERT INTO "audit" VALUES(103,1700000120.0,'operator','run.signed','run/readable','{}','sha256:cef5f8b2ed458e735058f6ebe6603cf70e66fbc937d7694610e07dfe25ea2d32','sha256:5df0f07482ac54a62cb0e544091872fa50b3288b1d3f1e1487ab0b95ffa2ddf5');
INSERT INTO "audit" VALUES(104,1700000120.0,'coordinator','round.open','run/readable/round/1','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c"}','sha256:5df0f07482ac54a62cb0e544091872fa50b3288b1d3f1e1487ab0b95ffa2ddf5','sha256:a6d9ef6da826529747a20e22c06eae26dab996f3a3d820096b2e344a2025db45');
INSERT INTO "audit" VALUES(105,1700000120.0,'ada','update.accepted','run/readable/round/1','{"accepted": 1}','sha256:a6d9ef6da826529747a20e22c06eae26dab996f3a3d820096b2e344a2025db45','sha256:ea6f9be9395b1380c8cb95f15ab52e2dad256c871b28ee7aff20bea9baaded13');
INSERT INTO "audit" VALUES(106,1700000120.0,'bob','update.accepted','run/readable/round/1','{"accepted": 2}','sha256:ea6f9be9395b1380c8cb95f15ab52e2dad256c871b28ee7aff20bea9baaded13','sha256:f41e94b6a8624285ec458551277ca545d7883aa36752f0da846f80573ba566cf');
INSERT INTO "audit" VALUES(107,1700000120.0,'coordinator','round.aggregated','run/readable/round/1','{"updates": 2, "bytes": 216}','sha256:f41e94b6a8624285ec458551277ca545d7883aa36752f0da846f80573ba566cf','sha256:aa8093bec686bf9a58b6811161df867923f90833b8c24d52797fd22b8b394a16');
INSERT INTO "audit" VALUES(108,1700000120.0,'worker','work.leased','run/readable/round/1','{"kind": "cotune", "lease": 1, "worker": "worker"}','sha256:aa8093bec686bf9a58b6811161df867923f90833b8c24d52797fd22b8b394a16','sha256:b3f0c77b43ce5c0680faaefec36ebe7ba3f226a5654c6b452a6d005060c25758');
INSERT INTO "audit" VALUES(109,1700000120.0,'worker','round.cotuning','run/readable/round/1','{}','sha256:b3f0c77b43ce5c0680faaefec36ebe7ba3f226a5654c6b452a6d005060c25758','sha256:225d1894d72877e4b3a37ac68b7cfb8d9c81236d6200968bbc05e9cf3a4b186a');
INSERT INTO "audit" VALUES(110,1700000120.0,'worker','work.done','run/readable/round/1','{"kind": "cotune", "lease": 1, "worker": "worker"}','sha256:225d1894d72877e4b3a37ac68b7cfb8d9c81236d6200968bbc05e9cf3a4b186a','sha256:d1b4dd1de44e493e5e3b7921dfab70c9bf706ec688e56f1c655f2a6527ab39df');
INSERT INTO "audit" VALUES(111,1700000120.0,'coordinator','round.evaluating','run/readable/round/1','{"steps": 1, "slm_loss": 1.0}','sha256:d1b4dd1de44e493e5e3b7921dfab70c9bf706ec688e56f1c655f2a6527ab39df','sha256:a9cce0c0d6b2e43b5dc2ccd5c1c44c921e65a5c16d3e8c4c811e1cfe0b881a9a');
INSERT INTO "audit" VALUES(112,1700000120.0,'worker','work.leased','run/readable/round/1','{"kind": "evaluate", "lease": 1, "worker": "worker"}','sha256:a9cce0c0d6b2e43b5dc2ccd5c1c44c921e65a5c16d3e8c4c811e1cfe0b881a9a','sha256:000f74fcce06a5100527c7f468ae04dbffdd54a8885ae62d135e80f2e54e1f33');
INSERT INTO "audit" VALUES(113,1700000120.0,'worker','work.done','run/readable/round/1','{"kind": "evaluate", "lease": 1, "worker": "worker"}','sha256:000f74fcce06a5100527c7f468ae04dbffdd54a8885ae62d135e80f2e54e1f33','sha256:5cc23084ce22b41c8d1f7f9126b7e310577ca24e978e703f5e82b605324ed5a5');
INSERT INTO "audit" VALUES(114,1700000120.0,'coordinator','round.published','run/readable/round/1','{"slm_adapter": "sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe", "llm_adapter": "sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8", "slm": 0.5, "llm": 0.5}','sha256:5cc23084ce22b41c8d1f7f9126b7e310577ca24e978e703f5e82b605324ed5a5','sha256:a239ce0194c81131c7718495b4b1958669a859da20626f34c00407157fffa8ea');
INSERT INTO "audit" VALUES(115,1700000120.0,'coordinator','round.open','run/readable/round/2','{"slm_adapter": "sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe"}','sha256:a239ce0194c81131c7718495b4b1958669a859da20626f34c00407157fffa8ea','sha256:762d80bfd294b92083cf7920fe64ecef5d2c43f02809d131134d6ad6534f95e6');
INSERT INTO "audit" VALUES(116,1700000120.0,'ada','update.accepted','run/readable/round/2','{"accepted": 1}','sha256:762d80bfd294b92083cf7920fe64ecef5d2c43f02809d131134d6ad6534f95e6','sha256:dced78a9820c6598855957e9be2fc42ec62483f2c45c665519699937ba881474');
INSERT INTO "audit" VALUES(117,1700000120.0,'operator','run.running','run/masked','{}','sha256:dced78a9820c6598855957e9be2fc42ec62483f2c45c665519699937ba881474','sha256:b8b5ab3c213a58e471044f2d23910e42734889854273ca0ca0258f458162d20f');
INSERT INTO "audit" VALUES(118,1700000120.0,'operator','adapter.pinned','run/ended/round/1','{"slm_adapter": "sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f"}','sha256:b8b5ab3c213a58e471044f2d23910e42734889854273ca0ca0258f458162d20f','sha256:d90a9994cb6b0a7e59b78be7da35765ab16b36289be033c519546c07ea6a718d');
INSERT INTO "audit" VALUES(119,1700000120.0,'operator','member.revoked','member/dan','{"key": "ed25519:YtguneD8DnkvN1TLU7vjDs3MvTaq9ZLA0zZZXB2FOec", "reason": "has left the federation"}','sha256:d90a9994cb6b0a7e59b78be7da35765ab16b36289be033c519546c07ea6a718d','sha256:47269d230fb5882348c80b72e8da4cabe0ff56c8adc2d91a97b2dbbf5c8bcc2c');
CREATE TABLE blobs (
	digest VARCHAR NOT NULL, 
	bytes BIGINT NOT NULL, 
	checksum VARCHAR NOT NULL, 
	CONSTRAINT pk_blobs PRIMARY KEY (digest)
);
INSERT INTO "blobs" VALUES('sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c',216,'d41e6d022e85570a3888c31ffb8b1da3');
INSERT INTO "blobs" VALUES('sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15',128,'86d19bc7085b17fe2b37b917dbf8e179');
INSERT INTO "blobs" VALUES('sha256:87c30588dea3a53b81d828c4b8064586c1d28022f5dc1c55b72c0ce2b0f28326',216,'ab7b6636427fef8992aa841150807b8b');
INSERT INTO "blobs" VALUES('sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f',216,'c0f1be2e30de3d2b779b5bd67b3e7367');
INSERT INTO "blobs" VALUES('sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8',128,'92d0162c2434a1a14580c91e497e4667');
INSERT INTO "blobs" VALUES('sha256:6687b6728165e941c5420b9ec65ad6b3c499f7b68793fd6bc050020bccb50e66',216,'c15785aab28cda5c63a951ba193a6c02');
INSERT INTO "blobs" VALUES('sha256:3773bac46a43b44037327d255cf7c0d1e37430d2f0cebb3b89d871febf07cbee',216,'0698bcba4c9e1d10bd2bafcf93becf8f');
INSERT INTO "blobs" VALUES('sha256:d5d416911c0d74239dec4f5c5c337b02b2245567f3ebdd93efaf04fca1cae768',128,'8a66b858b7f9ea566f10c5013247b217');
INSERT INTO "blobs" VALUES('sha256:bb0054d85ee9b05274ad927933045b837359172cbf7f33a314d582b6b3bf7e00',216,'e5980831d7702737ca48b5d1e57aad5f');
INSERT INTO "blobs" VALUES('sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8',216,'5a0d8a7203c21ad92f38cce7cbf909de');
INSERT INTO "blobs" VALUES('sha256:dbf243d57b64deed68320730e8a27dff2e72d17940a3ff6d313cee4c02b582a0',216,'2d9f6e11cf98112fa12c73709d07ab09');
INSERT INTO "blobs" VALUES('sha256:0bb2cc4d23373e54235acf60dcd9affca7af6f1203cec636d41d495f51369f7f',216,'5ae88cb6720e9acc453dcdd06a7e341f');
INSERT INTO "blobs" VALUES('sha256:4442358237a4b9da4005a719a3358939dcae20947db91c3e41e9460ecee243fd',216,'464a606e90a88fcc966a97b817f196f7');
INSERT INTO "blobs" VALUES('sha256:30cc7844a119eac037e257969dec5fa132a216e32adeb0f2a03e2bc98eac3bc2',216,'90140356f3b48bbe2ca9530389217908');
INSERT INTO "blobs" VALUES('sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe',216,'bb3893bd5ce71bc05834d3312f5cc4d5');
INSERT INTO "blobs" VALUES('sha256:1daf1e06c7d91b1b6cd38299d20ebdcad1a6c134434006cbfde7b831a5393f09',216,'4356c3b586b81624b985d4d44f9abaa6');
CREATE TABLE events (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run_id VARCHAR NOT NULL, 
	round INTEGER, 
	at FLOAT NOT NULL, 
	kind VARCHAR NOT NULL, 
	detail JSON NOT NULL, 
	CONSTRAINT fk_events_run_id FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "events" VALUES(1,'ended',NULL,1700000000.0,'run.draft','{"name": "a run"}');
INSERT INTO "events" VALUES(2,'ended',NULL,1700000000.0,'run.running','{}');
INSERT INTO "events" VALUES(3,'ended',NULL,1700000000.0,'work.leased','{"kind": "prepare", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(4,'ended',NULL,1700000000.0,'work.done','{"kind": "prepare", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(5,'ended',NULL,1700000000.0,'run.prepared','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c", "waits_for": "the operator''s signature"}');
INSERT INTO "events" VALUES(6,'ended',NULL,1700000000.0,'run.signed','{}');
INSERT INTO "events" VALUES(7,'ended',1,1700000000.0,'round.open','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c"}');
INSERT INTO "events" VALUES(8,'ended',1,1700000000.0,'update.ready','{"ready": 1}');
INSERT INTO "events" VALUES(9,'ended',1,1700000000.0,'update.ready','{"ready": 2}');
INSERT INTO "events" VALUES(10,'ended',1,1700000000.0,'update.ready','{"ready": 3}');
INSERT INTO "events" VALUES(11,'ended',1,1700000000.0,'update.ready','{"ready": 4}');
INSERT INTO "events" VALUES(12,'ended',1,1700000000.0,'round.keys','{"attempt": 1, "members": 4, "groups": 1}');
INSERT INTO "events" VALUES(13,'ended',1,1700000000.0,'round.shares','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(14,'ended',1,1700000000.0,'round.masked','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(15,'ended',1,1700000000.0,'round.consistency','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(16,'ended',1,1700000000.0,'round.unmasking','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(17,'ended',1,1700000000.0,'round.aggregated','{"updates": 4, "bytes": 216}');
INSERT INTO "events" VALUES(18,'ended',1,1700000000.0,'work.leased','{"kind": "cotune", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(19,'ended',1,1700000000.0,'round.cotuning','{}');
INSERT INTO "events" VALUES(20,'ended',1,1700000000.0,'work.done','{"kind": "cotune", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(21,'ended',1,1700000000.0,'round.evaluating','{"steps": 1, "slm_loss": 1.0}');
INSERT INTO "events" VALUES(22,'ended',1,1700000000.0,'work.leased','{"kind": "evaluate", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(23,'ended',1,1700000000.0,'work.done','{"kind": "evaluate", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(24,'ended',1,1700000000.0,'round.published','{"slm_adapter": "sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f", "llm_adapter": "sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8", "slm": 0.5, "llm": 0.5}');
INSERT INTO "events" VALUES(25,'ended',2,1700000000.0,'round.open','{"slm_adapter": "sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f"}');
INSERT INTO "events" VALUES(26,'ended',2,1700000000.0,'update.ready','{"ready": 1}');
INSERT INTO "events" VALUES(27,'ended',2,1700000000.0,'update.ready','{"ready": 2}');
INSERT INTO "events" VALUES(28,'ended',2,1700000000.0,'update.ready','{"ready": 3}');
INSERT INTO "events" VALUES(29,'ended',2,1700000000.0,'update.ready','{"ready": 4}');
INSERT INTO "events" VALUES(30,'ended',2,1700000000.0,'round.keys','{"attempt": 1, "members": 4, "groups": 1}');
INSERT INTO "events" VALUES(31,'ended',2,1700000000.0,'round.shares','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(32,'ended',2,1700000000.0,'round.masked','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(33,'ended',2,1700000000.0,'round.consistency','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(34,'ended',2,1700000000.0,'round.unmasking','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(35,'ended',2,1700000000.0,'round.aggregated','{"updates": 4, "bytes": 216}');
INSERT INTO "events" VALUES(36,'ended',2,1700000000.0,'work.leased','{"kind": "cotune", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(37,'ended',2,1700000000.0,'round.cotuning','{}');
INSERT INTO "events" VALUES(38,'ended',2,1700000000.0,'work.done','{"kind": "cotune", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(39,'ended',2,1700000000.0,'round.evaluating','{"steps": 1, "slm_loss": 1.0}');
INSERT INTO "events" VALUES(40,'ended',2,1700000000.0,'work.leased','{"kind": "evaluate", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(41,'ended',2,1700000000.0,'work.done','{"kind": "evaluate", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(42,'ended',2,1700000000.0,'round.published','{"slm_adapter": "sha256:3773bac46a43b44037327d255cf7c0d1e37430d2f0cebb3b89d871febf07cbee", "llm_adapter": "sha256:d5d416911c0d74239dec4f5c5c337b02b2245567f3ebdd93efaf04fca1cae768", "slm": 0.5, "llm": 0.5}');
INSERT INTO "events" VALUES(43,'ended',NULL,1700000000.0,'run.finished','{}');
INSERT INTO "events" VALUES(44,'masked',NULL,1700000060.0,'run.draft','{"name": "a run"}');
INSERT INTO "events" VALUES(45,'masked',NULL,1700000060.0,'run.running','{}');
INSERT INTO "events" VALUES(46,'masked',NULL,1700000060.0,'work.leased','{"kind": "prepare", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(47,'masked',NULL,1700000060.0,'work.done','{"kind": "prepare", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(48,'masked',NULL,1700000060.0,'run.prepared','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c", "waits_for": "the operator''s signature"}');
INSERT INTO "events" VALUES(49,'masked',NULL,1700000060.0,'run.signed','{}');
INSERT INTO "events" VALUES(50,'masked',1,1700000060.0,'round.open','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c"}');
INSERT INTO "events" VALUES(51,'masked',1,1700000060.0,'update.ready','{"ready": 1}');
INSERT INTO "events" VALUES(52,'masked',1,1700000060.0,'update.ready','{"ready": 2}');
INSERT INTO "events" VALUES(53,'masked',1,1700000060.0,'update.ready','{"ready": 3}');
INSERT INTO "events" VALUES(54,'masked',1,1700000060.0,'update.ready','{"ready": 4}');
INSERT INTO "events" VALUES(55,'masked',1,1700000060.0,'round.keys','{"attempt": 1, "members": 4, "groups": 1}');
INSERT INTO "events" VALUES(56,'masked',1,1700000060.0,'round.shares','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(57,'masked',1,1700000060.0,'round.masked','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(58,'masked',1,1700000060.0,'round.consistency','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(59,'masked',1,1700000060.0,'round.unmasking','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(60,'masked',1,1700000060.0,'round.aggregated','{"updates": 4, "bytes": 216}');
INSERT INTO "events" VALUES(61,'masked',1,1700000060.0,'work.leased','{"kind": "cotune", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(62,'masked',1,1700000060.0,'round.cotuning','{}');
INSERT INTO "events" VALUES(63,'masked',1,1700000060.0,'work.done','{"kind": "cotune", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(64,'masked',1,1700000060.0,'round.evaluating','{"steps": 1, "slm_loss": 1.0}');
INSERT INTO "events" VALUES(65,'masked',1,1700000060.0,'work.leased','{"kind": "evaluate", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(66,'masked',1,1700000060.0,'work.done','{"kind": "evaluate", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(67,'masked',1,1700000060.0,'round.published','{"slm_adapter": "sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8", "llm_adapter": "sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8", "slm": 0.5, "llm": 0.5}');
INSERT INTO "events" VALUES(68,'masked',2,1700000060.0,'round.open','{"slm_adapter": "sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8"}');
INSERT INTO "events" VALUES(69,'masked',2,1700000060.0,'update.ready','{"ready": 1}');
INSERT INTO "events" VALUES(70,'masked',2,1700000060.0,'update.ready','{"ready": 2}');
INSERT INTO "events" VALUES(71,'masked',2,1700000060.0,'update.ready','{"ready": 3}');
INSERT INTO "events" VALUES(72,'masked',2,1700000060.0,'update.ready','{"ready": 4}');
INSERT INTO "events" VALUES(73,'masked',2,1700000060.0,'round.keys','{"attempt": 1, "members": 4, "groups": 1}');
INSERT INTO "events" VALUES(74,'masked',2,1700000060.0,'round.shares','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(75,'masked',2,1700000060.0,'round.masked','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(76,'masked',2,1700000060.0,'round.consistency','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(77,'masked',2,1700000060.0,'round.unmasking','{"attempt": 1, "lost": 0}');
INSERT INTO "events" VALUES(78,'masked',2,1700000060.0,'round.aggregated','{"updates": 4, "bytes": 216}');
INSERT INTO "events" VALUES(79,'masked',NULL,1700000060.0,'run.paused','{}');
INSERT INTO "events" VALUES(80,'readable',NULL,1700000120.0,'run.draft','{"name": "a run"}');
INSERT INTO "events" VALUES(81,'readable',NULL,1700000120.0,'run.warning','{"warning": "PlaintextAggregation: the coordinator can read every agent''s update"}');
INSERT INTO "events" VALUES(82,'readable',NULL,1700000120.0,'run.running','{}');
INSERT INTO "events" VALUES(83,'readable',NULL,1700000120.0,'work.leased','{"kind": "prepare", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(84,'readable',NULL,1700000120.0,'work.done','{"kind": "prepare", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(85,'readable',NULL,1700000120.0,'run.prepared','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c", "waits_for": "the operator''s signature"}');
INSERT INTO "events" VALUES(86,'readable',NULL,1700000120.0,'run.signed','{}');
INSERT INTO "events" VALUES(87,'readable',1,1700000120.0,'round.open','{"slm_adapter": "sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c"}');
INSERT INTO "events" VALUES(88,'readable',1,1700000120.0,'update.accepted','{"accepted": 1}');
INSERT INTO "events" VALUES(89,'readable',1,1700000120.0,'update.accepted','{"accepted": 2}');
INSERT INTO "events" VALUES(90,'readable',1,1700000120.0,'round.aggregated','{"updates": 2, "bytes": 216}');
INSERT INTO "events" VALUES(91,'readable',1,1700000120.0,'work.leased','{"kind": "cotune", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(92,'readable',1,1700000120.0,'round.cotuning','{}');
INSERT INTO "events" VALUES(93,'readable',1,1700000120.0,'work.done','{"kind": "cotune", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(94,'readable',1,1700000120.0,'round.evaluating','{"steps": 1, "slm_loss": 1.0}');
INSERT INTO "events" VALUES(95,'readable',1,1700000120.0,'work.leased','{"kind": "evaluate", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(96,'readable',1,1700000120.0,'work.done','{"kind": "evaluate", "lease": 1, "worker": "worker"}');
INSERT INTO "events" VALUES(97,'readable',1,1700000120.0,'round.published','{"slm_adapter": "sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe", "llm_adapter": "sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8", "slm": 0.5, "llm": 0.5}');
INSERT INTO "events" VALUES(98,'readable',2,1700000120.0,'round.open','{"slm_adapter": "sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe"}');
INSERT INTO "events" VALUES(99,'readable',2,1700000120.0,'update.accepted','{"accepted": 1}');
INSERT INTO "events" VALUES(100,'masked',NULL,1700000120.0,'run.running','{}');
CREATE TABLE jobs (
	id VARCHAR NOT NULL, 
	run_id VARCHAR NOT NULL, 
	round INTEGER NOT NULL, 
	state VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	task TEXT NOT NULL, 
	token INTEGER NOT NULL, 
	principal VARCHAR, 
	worker VARCHAR, 
	result VARCHAR, 
	expires_at FLOAT, 
	renewed_at FLOAT, 
	created_at FLOAT NOT NULL, 
	CONSTRAINT pk_jobs PRIMARY KEY (id), 
	CONSTRAINT fk_jobs_run_id FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "jobs" VALUES('ended-0-prepare','ended',0,'done',2,'{"kind":"prepare"}',1,'worker','worker','sha256:70c2c45c3540867f2921d7461845ec30cd9d71504b918618828d4505ed6386ec',1700000030.0,NULL,1700000000.0);
INSERT INTO "jobs" VALUES('ended-1-cotune','ended',1,'done',2,'{"kind":"cotune","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_adapter":"sha256:87c30588dea3a53b81d828c4b8064586c1d28022f5dc1c55b72c0ce2b0f28326","llm_adapter":"sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15","seed":7230804631508801815}',1,'worker','worker','sha256:73311b4a7bbe44ca716fa5617480c87ca19f257a8695b34bf6002f729c26612a',1700000030.0,NULL,1700000000.0);
INSERT INTO "jobs" VALUES('ended-1-evaluate','ended',1,'done',2,'{"kind":"evaluate","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_aggregated":"sha256:87c30588dea3a53b81d828c4b8064586c1d28022f5dc1c55b72c0ce2b0f28326","slm_adapter":"sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f","llm_adapter":"sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8"}',1,'worker','worker','sha256:f480ddc004aa28a65d80f8f4d8ae0b288a15d4f7e083633bf6fde1be542281be',1700000030.0,NULL,1700000000.0);
INSERT INTO "jobs" VALUES('ended-2-cotune','ended',2,'done',2,'{"kind":"cotune","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_adapter":"sha256:6687b6728165e941c5420b9ec65ad6b3c499f7b68793fd6bc050020bccb50e66","llm_adapter":"sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8","seed":3710938354782851902}',1,'worker','worker','sha256:f98669fef0cf70eb2e29fedc12760739a0ade9ec857e24b87432ddff0390fa92',1700000030.0,NULL,1700000000.0);
INSERT INTO "jobs" VALUES('ended-2-evaluate','ended',2,'done',2,'{"kind":"evaluate","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_aggregated":"sha256:6687b6728165e941c5420b9ec65ad6b3c499f7b68793fd6bc050020bccb50e66","slm_adapter":"sha256:3773bac46a43b44037327d255cf7c0d1e37430d2f0cebb3b89d871febf07cbee","llm_adapter":"sha256:d5d416911c0d74239dec4f5c5c337b02b2245567f3ebdd93efaf04fca1cae768"}',1,'worker','worker','sha256:f480ddc004aa28a65d80f8f4d8ae0b288a15d4f7e083633bf6fde1be542281be',1700000030.0,NULL,1700000000.0);
INSERT INTO "jobs" VALUES('masked-0-prepare','masked',0,'done',2,'{"kind":"prepare"}',1,'worker','worker','sha256:70c2c45c3540867f2921d7461845ec30cd9d71504b918618828d4505ed6386ec',1700000090.0,NULL,1700000060.0);
INSERT INTO "jobs" VALUES('masked-1-cotune','masked',1,'done',2,'{"kind":"cotune","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_adapter":"sha256:bb0054d85ee9b05274ad927933045b837359172cbf7f33a314d582b6b3bf7e00","llm_adapter":"sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15","seed":8155779979722621318}',1,'worker','worker','sha256:4443053019d6ba4777028eee30db9ce9ff63228e17de4c0ff90af8f4eefed43d',1700000090.0,NULL,1700000060.0);
INSERT INTO "jobs" VALUES('masked-1-evaluate','masked',1,'done',2,'{"kind":"evaluate","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_aggregated":"sha256:bb0054d85ee9b05274ad927933045b837359172cbf7f33a314d582b6b3bf7e00","slm_adapter":"sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8","llm_adapter":"sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8"}',1,'worker','worker','sha256:f480ddc004aa28a65d80f8f4d8ae0b288a15d4f7e083633bf6fde1be542281be',1700000090.0,NULL,1700000060.0);
INSERT INTO "jobs" VALUES('masked-2-cotune','masked',2,'pending',0,'{"kind":"cotune","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_adapter":"sha256:dbf243d57b64deed68320730e8a27dff2e72d17940a3ff6d313cee4c02b582a0","llm_adapter":"sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8","seed":473556275464367012}',0,NULL,NULL,NULL,NULL,NULL,1700000060.0);
INSERT INTO "jobs" VALUES('readable-0-prepare','readable',0,'done',2,'{"kind":"prepare"}',1,'worker','worker','sha256:70c2c45c3540867f2921d7461845ec30cd9d71504b918618828d4505ed6386ec',1700000150.0,NULL,1700000120.0);
INSERT INTO "jobs" VALUES('readable-1-cotune','readable',1,'done',2,'{"kind":"cotune","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_adapter":"sha256:30cc7844a119eac037e257969dec5fa132a216e32adeb0f2a03e2bc98eac3bc2","llm_adapter":"sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15","seed":8643229750676125426}',1,'worker','worker','sha256:e68adf5ee3a6950ce245af9801a178937340634efac53d2070532041ed416f06',1700000150.0,NULL,1700000120.0);
INSERT INTO "jobs" VALUES('readable-1-evaluate','readable',1,'done',2,'{"kind":"evaluate","prepared":{"tokenizer":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","llm":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554"},"slm_aggregated":"sha256:30cc7844a119eac037e257969dec5fa132a216e32adeb0f2a03e2bc98eac3bc2","slm_adapter":"sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe","llm_adapter":"sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8"}',1,'worker','worker','sha256:f480ddc004aa28a65d80f8f4d8ae0b288a15d4f7e083633bf6fde1be542281be',1700000150.0,NULL,1700000120.0);
CREATE TABLE members (
	name VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	"key" VARCHAR, 
	invitation VARCHAR, 
	invitation_expires_at FLOAT, 
	not_after INTEGER, 
	signature VARCHAR, 
	created_at FLOAT NOT NULL, 
	changed_at FLOAT NOT NULL, 
	CONSTRAINT pk_members PRIMARY KEY (name), 
	CONSTRAINT uq_members_invitation UNIQUE (invitation)
);
INSERT INTO "members" VALUES('ada','approved',0,'ed25519:Y8OLGeRhIV6pW9aGGbZ1FFwv6tDUpLCFv1j8SZetRbA',NULL,NULL,4000000000,'1GBwmOOQWzWJrsnfPbElVtotCgdEfQM6xxd0BA3p84p0yJv6Z3Yv1IgwYzNHIdBZdI32PdZyECaf6zFfwtECDg',1700000000.0,1700000000.0);
INSERT INTO "members" VALUES('bob','approved',0,'ed25519:ogdUQWWV7LJZFkZJjGdWcHUWKPHyoPcDbAFGb9Zedhk',NULL,NULL,4000000000,'vwiX2zn1XdWxRRGR3NyCwmV7J8PfkLkcnxwUlOgYrUVCnbwcfv2hNOlCddmZ_JOa8v5hoVGALexP9I3KwJpnAQ',1700000000.0,1700000000.0);
INSERT INTO "members" VALUES('cleo','approved',0,'ed25519:CxFaSk_vEdtkjPiC2QLgU1fs7xL7FQUFGRl9k2fJ11E',NULL,NULL,4000000000,'1JVMFClhOIr1_5BpmTMHuEZeP-xaAq3sj0J6Zp8lI47QZkPpShgiB2FzofohcXTRAm_fX22re2SSGSN9ohV1DQ',1700000000.0,1700000000.0);
INSERT INTO "members" VALUES('dan','revoked',1,'ed25519:YtguneD8DnkvN1TLU7vjDs3MvTaq9ZLA0zZZXB2FOec',NULL,NULL,4000000000,'zsN_fkcjQzfi22e99oNf81drhG2eodQ1mlWSGBg_Y-95Zw4XBOHiEgvzUk_1ZF9VEAwU70oNPbWaOjA-QNTmCQ',1700000000.0,1700000120.0);
CREATE TABLE promotions (
	id INTEGER NOT NULL, 
	run_id VARCHAR NOT NULL, 
	round INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	CONSTRAINT pk_promotions PRIMARY KEY (id), 
	CONSTRAINT fk_promotions_run_id FOREIGN KEY(run_id) REFERENCES runs (id), 
	CONSTRAINT fk_promotions_digest FOREIGN KEY(digest) REFERENCES blobs (digest)
);
INSERT INTO "promotions" VALUES(1,'ended',1,'sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f');
CREATE TABLE ready (
	run_id VARCHAR NOT NULL, 
	round INTEGER NOT NULL, 
	agent VARCHAR NOT NULL, 
	barred TEXT, 
	CONSTRAINT pk_ready PRIMARY KEY (run_id, round, agent)
);
CREATE TABLE rounds (
	run_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	state VARCHAR NOT NULL, 
	reason VARCHAR, 
	version INTEGER NOT NULL, 
	slm_adapter VARCHAR NOT NULL, 
	llm_adapter VARCHAR NOT NULL, 
	aggregate VARCHAR, 
	slm_candidate VARCHAR, 
	llm_candidate VARCHAR, 
	scores TEXT, 
	accepted INTEGER NOT NULL, 
	refused INTEGER NOT NULL, 
	late INTEGER NOT NULL, 
	entered JSON NOT NULL, attempt INTEGER DEFAULT '0' NOT NULL, total_count INTEGER, error_bound FLOAT, evaluation TEXT, restarted JSON DEFAULT '{}' NOT NULL, shared_with JSON, 
	CONSTRAINT pk_rounds PRIMARY KEY (run_id, number), 
	CONSTRAINT fk_rounds_run_id FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "rounds" VALUES('ended',1,'published',NULL,13,'sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c','sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15','sha256:87c30588dea3a53b81d828c4b8064586c1d28022f5dc1c55b72c0ce2b0f28326','sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f','sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8','{"slm_aggregated":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"slm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"llm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null}}',4,0,0,'{"open": 1700000000.0, "keys": 1700000000.0, "shares": 1700000000.0, "masked": 1700000000.0, "consistency": 1700000000.0, "unmasking": 1700000000.0, "aggregated": 1700000000.0, "cotuning": 1700000000.0, "evaluating": 1700000000.0, "published": 1700000000.0}',1,NULL,9.31322576350202e-08,NULL,'{}',NULL);
INSERT INTO "rounds" VALUES('ended',2,'published',NULL,13,'sha256:101a843f493086442bf56218fe9ef8b6e5ea344b73d374f2158a42a15517f84f','sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8','sha256:6687b6728165e941c5420b9ec65ad6b3c499f7b68793fd6bc050020bccb50e66','sha256:3773bac46a43b44037327d255cf7c0d1e37430d2f0cebb3b89d871febf07cbee','sha256:d5d416911c0d74239dec4f5c5c337b02b2245567f3ebdd93efaf04fca1cae768','{"slm_aggregated":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"slm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"llm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null}}',4,0,0,'{"open": 1700000000.0, "keys": 1700000000.0, "shares": 1700000000.0, "masked": 1700000000.0, "consistency": 1700000000.0, "unmasking": 1700000000.0, "aggregated": 1700000000.0, "cotuning": 1700000000.0, "evaluating": 1700000000.0, "published": 1700000000.0}',1,NULL,9.31322576350202e-08,NULL,'{}',NULL);
INSERT INTO "rounds" VALUES('masked',1,'published',NULL,13,'sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c','sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15','sha256:bb0054d85ee9b05274ad927933045b837359172cbf7f33a314d582b6b3bf7e00','sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8','sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8','{"slm_aggregated":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"slm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"llm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null}}',4,0,0,'{"open": 1700000060.0, "keys": 1700000060.0, "shares": 1700000060.0, "masked": 1700000060.0, "consistency": 1700000060.0, "unmasking": 1700000060.0, "aggregated": 1700000060.0, "cotuning": 1700000060.0, "evaluating": 1700000060.0, "published": 1700000060.0}',1,NULL,9.31322576350202e-08,NULL,'{}',NULL);
INSERT INTO "rounds" VALUES('masked',2,'aggregated',NULL,10,'sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8','sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8','sha256:dbf243d57b64deed68320730e8a27dff2e72d17940a3ff6d313cee4c02b582a0',NULL,NULL,NULL,4,0,0,'{"open": 1700000060.0, "keys": 1700000060.0, "shares": 1700000060.0, "masked": 1700000060.0, "consistency": 1700000060.0, "unmasking": 1700000060.0, "aggregated": 1700000060.0}',1,NULL,9.31322576350202e-08,NULL,'{}',NULL);
INSERT INTO "rounds" VALUES('readable',1,'published',NULL,6,'sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c','sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15','sha256:30cc7844a119eac037e257969dec5fa132a216e32adeb0f2a03e2bc98eac3bc2','sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe','sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8','{"slm_aggregated":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"slm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"llm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null}}',2,0,0,'{"open": 1700000120.0, "aggregated": 1700000120.0, "cotuning": 1700000120.0, "evaluating": 1700000120.0, "published": 1700000120.0}',0,NULL,NULL,NULL,'{}',NULL);
INSERT INTO "rounds" VALUES('readable',2,'open',NULL,1,'sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe','sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8',NULL,NULL,NULL,NULL,1,0,0,'{"open": 1700000120.0}',0,NULL,NULL,NULL,'{}',NULL);
CREATE TABLE runs (
	id VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	reason VARCHAR, 
	version INTEGER NOT NULL, 
	terms TEXT NOT NULL, 
	prepared TEXT, 
	round INTEGER NOT NULL, 
	failed_in_a_row INTEGER NOT NULL, 
	published_round INTEGER NOT NULL, 
	slm_adapter VARCHAR, 
	llm_adapter VARCHAR, 
	slm_loss FLOAT, 
	created_at FLOAT NOT NULL, signature VARCHAR, 
	CONSTRAINT pk_runs PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES('ended','finished',NULL,8,'{"name":"a run","llm":"llm","slm":"slm","seed":1,"rounds":2,"task":{"kind":"multiple_choice","template":"Question: {question}\nAnswer:","too_long":"refuse"},"llm_lora":{"rank":8,"alpha":16,"dropout":0.05,"targets":null},"slm_lora":{"rank":2,"alpha":16,"dropout":0.05,"targets":null},"training":{"epochs":1,"batch_size":2,"optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0},"max_tokens":64},"cotuning":{"passes":1,"batch_size":2,"distillation_weight":1.0,"direction":"forward","schedule":"simultaneous","distils":"everywhere","llm_optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0},"slm_optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0}},"cohort":{"min_count":3,"max_count":4,"min_seconds":10.0,"max_seconds":60.0},"gate":{"enabled":true,"tolerance":0.0},"weighting":"unweighted","aggregation":"SecureAggregation","masking":{"clip_norm":50.0,"stage_seconds":5.0},"evaluation_examples":0,"share_aggregate":false}','{"kind":"prepare","tokenizer_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":{"base_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","adapter":"sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c","layout":{"slm.lora_A.weight":[2,3],"slm.lora_B.weight":[4,2]},"adapter_config":{"peft_type":"LORA","task_type":"CAUSAL_LM","base_model_name_or_path":null,"inference_mode":true,"peft_version":"0","r":2,"lora_alpha":16,"lora_dropout":0.05,"target_modules":["slm"],"exclude_modules":null,"fan_in_fan_out":false,"bias":"none"},"licence":null},"llm":{"base_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","adapter":"sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15","layout":{"llm.lora_A.weight":[2,5]},"adapter_config":{"peft_type":"LORA","task_type":"CAUSAL_LM","base_model_name_or_path":null,"inference_mode":true,"peft_version":"0","r":8,"lora_alpha":16,"lora_dropout":0.05,"target_modules":["llm"],"exclude_modules":null,"fan_in_fan_out":false,"bias":"none"},"licence":null},"scores":{"slm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"llm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null}}}',2,0,2,'sha256:3773bac46a43b44037327d255cf7c0d1e37430d2f0cebb3b89d871febf07cbee','sha256:d5d416911c0d74239dec4f5c5c337b02b2245567f3ebdd93efaf04fca1cae768',1.0,1700000000.0,'3ZnAC77YaHPL0T9hBpYEC1nZv7xKsVvPSrXUjMYMqZlqV5Sg4PEdU86p-VG8ZG7BzjUmQWS63JlU1GeGd660AQ');
INSERT INTO "runs" VALUES('masked','running',NULL,8,'{"name":"a run","llm":"llm","slm":"slm","seed":1,"rounds":2,"task":{"kind":"multiple_choice","template":"Question: {question}\nAnswer:","too_long":"refuse"},"llm_lora":{"rank":8,"alpha":16,"dropout":0.05,"targets":null},"slm_lora":{"rank":2,"alpha":16,"dropout":0.05,"targets":null},"training":{"epochs":1,"batch_size":2,"optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0},"max_tokens":64},"cotuning":{"passes":1,"batch_size":2,"distillation_weight":1.0,"direction":"forward","schedule":"simultaneous","distils":"everywhere","llm_optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0},"slm_optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0}},"cohort":{"min_count":3,"max_count":4,"min_seconds":10.0,"max_seconds":60.0},"gate":{"enabled":true,"tolerance":0.0},"weighting":"unweighted","aggregation":"SecureAggregation","masking":{"clip_norm":50.0,"stage_seconds":5.0},"evaluation_examples":0,"share_aggregate":false}','{"kind":"prepare","tokenizer_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":{"base_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","adapter":"sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c","layout":{"slm.lora_A.weight":[2,3],"slm.lora_B.weight":[4,2]},"adapter_config":{"peft_type":"LORA","task_type":"CAUSAL_LM","base_model_name_or_path":null,"inference_mode":true,"peft_version":"0","r":2,"lora_alpha":16,"lora_dropout":0.05,"target_modules":["slm"],"exclude_modules":null,"fan_in_fan_out":false,"bias":"none"},"licence":null},"llm":{"base_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","adapter":"sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15","layout":{"llm.lora_A.weight":[2,5]},"adapter_config":{"peft_type":"LORA","task_type":"CAUSAL_LM","base_model_name_or_path":null,"inference_mode":true,"peft_version":"0","r":8,"lora_alpha":16,"lora_dropout":0.05,"target_modules":["llm"],"exclude_modules":null,"fan_in_fan_out":false,"bias":"none"},"licence":null},"scores":{"slm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"llm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null}}}',2,0,1,'sha256:6e978eb6147fbf0ff2da3d6efadcfdcd7c652d9ec811286069bf362b64b7faf8','sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8',1.0,1700000060.0,'5crcQrc65qnb_6DPAwlrCVq_GGQXfM2mzKwnuGQo7GY5bDz1IEehN_XRkWtw3wRtTOO7BGBqDefEAF1CxMRoAg');
INSERT INTO "runs" VALUES('readable','running',NULL,6,'{"name":"a run","llm":"llm","slm":"slm","seed":1,"rounds":2,"task":{"kind":"multiple_choice","template":"Question: {question}\nAnswer:","too_long":"refuse"},"llm_lora":{"rank":8,"alpha":16,"dropout":0.05,"targets":null},"slm_lora":{"rank":2,"alpha":16,"dropout":0.05,"targets":null},"training":{"epochs":1,"batch_size":2,"optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0},"max_tokens":64},"cotuning":{"passes":1,"batch_size":2,"distillation_weight":1.0,"direction":"forward","schedule":"simultaneous","distils":"everywhere","llm_optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0},"slm_optimiser":{"learning_rate":0.001,"beta1":0.9,"beta2":0.95,"weight_decay":0.0,"clip_norm":1.0}},"cohort":{"min_count":2,"max_count":2,"min_seconds":10000.0,"max_seconds":10000.0},"gate":{"enabled":true,"tolerance":0.0},"weighting":"unweighted","aggregation":"PlaintextAggregation","masking":{"clip_norm":50.0,"stage_seconds":30.0},"evaluation_examples":0,"share_aggregate":false}','{"kind":"prepare","tokenizer_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","slm":{"base_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","adapter":"sha256:0b0091197317cb62f0eb1d30d3afd4bfb8b5fa2f52c7f32fc707fb5b7514dd8c","layout":{"slm.lora_A.weight":[2,3],"slm.lora_B.weight":[4,2]},"adapter_config":{"peft_type":"LORA","task_type":"CAUSAL_LM","base_model_name_or_path":null,"inference_mode":true,"peft_version":"0","r":2,"lora_alpha":16,"lora_dropout":0.05,"target_modules":["slm"],"exclude_modules":null,"fan_in_fan_out":false,"bias":"none"},"licence":null},"llm":{"base_digest":"sha256:f62c7d17e241fe5c5c0c64d2e32ab6e3bd10547a9c02977cc126acc0fe6e6554","adapter":"sha256:ea6cfd7410d46b62c9a12525899f2a176f102333d3300dab50bd42b12fc19c15","layout":{"llm.lora_A.weight":[2,5]},"adapter_config":{"peft_type":"LORA","task_type":"CAUSAL_LM","base_model_name_or_path":null,"inference_mode":true,"peft_version":"0","r":8,"lora_alpha":16,"lora_dropout":0.05,"target_modules":["llm"],"exclude_modules":null,"fan_in_fan_out":false,"bias":"none"},"licence":null},"scores":{"slm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null},"llm":{"accuracy":0.5,"loss":1.0,"examples":1,"chance":0.25,"interval":null}}}',2,0,1,'sha256:d9c63fcdb5b3996df9128381bcc29dc9e2b38acbfcd8d26e48b72b40164858fe','sha256:6cb1580f5c77e46fa5e221a95b645221a3b1ac476298ea1ef03ab812c3f076f8',1.0,1700000120.0,'kvr7zKh6JkAdtfhKXcTVWb60cGWv4fu_qlveh8AxvtzvoK11kxyXf9LCrffioAEPZyReQEsusciMbfzixt4aDQ');
CREATE TABLE updates (
	run_id VARCHAR NOT NULL, 
	round INTEGER NOT NULL, 
	agent VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	weight INTEGER NOT NULL, 
	received_at FLOAT NOT NULL, 
	CONSTRAINT pk_updates PRIMARY KEY (run_id, round, agent), 
	CONSTRAINT fk_updates_digest FOREIGN KEY(digest) REFERENCES blobs (digest)
);
INSERT INTO "updates" VALUES('readable',1,'ada','sha256:0bb2cc4d23373e54235acf60dcd9affca7af6f1203cec636d41d495f51369f7f',1,1700000120.0);
INSERT INTO "updates" VALUES('readable',1,'bob','sha256:4442358237a4b9da4005a719a3358939dcae20947db91c3e41e9460ecee243fd',1,1700000120.0);
INSERT INTO "updates" VALUES('readable',2,'ada','sha256:1daf1e06c7d91b1b6cd38299d20ebdcad1a6c134434006cbfde7b831a5393f09',1,1700000120.0);
CREATE INDEX ix_events_run_id ON events (run_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',100);
COMMIT;
